"""Methods that a job names: of reweighting and of spreading, one file each."""
