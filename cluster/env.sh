# shellcheck shell=bash
# What every node of a cluster must agree on. Sourced before each `ray start` and in login shells.
export PATH="$HOME/cwerm-venv/bin:$PATH"

# Nobody without the token starts or joins anything. The token is in ~/.ray/auth_token, or in RAY_AUTH_TOKEN.
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0 RAY_DATA_USAGE_DISABLED=1 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0

# A lost node is noticed after about 6 s, by default after a minute. Raise the threshold where nodes that
# are only busy are declared dead. The head alone reads these.
export RAY_health_check_initial_delay_ms=1000 RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=1000 RAY_health_check_failure_threshold=3

# What was asked of a lost node is given up after at most 15 s and asked of another, by default after seven
# minutes. All nodes and drivers need the same numbers: a server ends connections that ask it more often.
export RAY_grpc_client_keepalive_time_ms=5000 RAY_grpc_client_keepalive_timeout_ms=10000

# A bucket that is not on AWS: uncomment and set your endpoint; put the keys in each node's ~/.aws/credentials.
# export AWS_ENDPOINT_URL_S3=https://CHANGE-ME-s3.example.com
