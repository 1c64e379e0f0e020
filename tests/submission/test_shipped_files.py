"""What of a folder goes to a cluster, what stays, and what is said of it."""

from __future__ import annotations

import os
import socket
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cwerm.errors import UserError
from cwerm.job.tree import Job, parse_job
from cwerm.submission.package import JOB_FILE, pack

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"


def job(storage: str = "s3://b/x") -> Job:
    return parse_job({"storage": storage, "data": {"source": "sample"}})


def packed(folder: Path, out: Path, of: Job | None = None) -> tuple[set[str], str]:
    """The names in the archive, and what was told."""
    told: list[str] = []
    with zipfile.ZipFile(pack(of or job(), folder, out, tell=told.append)) as archive:
        names = archive.namelist()
    assert len(names) == len({*names})
    (line,) = told
    return {*names} - {JOB_FILE}, line


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "images").mkdir(parents=True)
    (tmp_path / "project" / "code.py").write_text("1")
    (tmp_path / "project" / "images" / "1.png").write_bytes(bytes(3 * 2**19))
    return tmp_path / "project"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_what_is_shipped_is_told(project: Path, out: Path) -> None:
    names, line = packed(project, out)
    assert names == {"code.py", "images/1.png"}
    assert line == f"ships 2 files, 1.5 MiB, of '{project}'"


def test_links_in_a_circle(project: Path, out: Path) -> None:
    """Each file once, and an end, however the links lie."""
    for link in ("a", "b", "images/up", "images/here"):
        (project / link).symlink_to(
            project if "here" not in link else project / "images", target_is_directory=True
        )
    (project / "x").mkdir()
    (project / "y").mkdir()
    (project / "x" / "y").symlink_to(project / "y")
    (project / "y" / "x").symlink_to(project / "x")
    (project / "loop").symlink_to("loop")
    names, line = packed(project, out)
    assert names == {"code.py", "images/1.png"}
    assert "left out: links in a circle (a, b, images/here, images/up and 3 more)" in line


def test_links_that_lead_elsewhere_are_followed_and_told(project: Path, out: Path) -> None:
    elsewhere = project.parent / "data"
    elsewhere.mkdir()
    (elsewhere / "2.png").write_bytes(b"2")
    (project / "data").symlink_to(elsewhere)
    (project / "copy").symlink_to(project / "images")
    (project / "gone").symlink_to(project / "none")
    names, line = packed(project, out)
    assert names == {"code.py", "images/1.png", "copy/1.png", "data/2.png"}
    assert "with what links lead to elsewhere: (data)" in line
    assert "links to nothing (gone)" in line


def test_secrets_stay(project: Path, out: Path) -> None:
    secrets = {
        "images/id_ed25519": "x",
        "server.pem": "x",
        "TLS.KEY": "x",
        "credentials": "x",
        "prod.env": "x",
        "me_accessKeys.csv": "x",
        "notes.txt": KEY,
        "robot.json": '{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----x"}',
        "conf/aws.ini": f"[default]\naws_secret_access_key = {'a' * 40}\n",
    }
    hidden = [".env", ".aws/credentials", ".git/config", ".ssh/id_rsa", "images/.netrc"]
    for name in [*secrets, *hidden]:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(secrets.get(name, "x"))
    (project.parent / ".ssh").mkdir()
    (project.parent / ".ssh" / "config").write_text("x")
    (project / "keys").symlink_to(project.parent / ".ssh")
    (project / "innocent").symlink_to(project.parent / ".ssh" / "config")
    (project / "id_rsa.pub").write_text("public")
    (project / "auth.py").write_text(
        "KEY = '-----BEGIN PRIVATE KEY-----'; aws_secret_access_key = k"
    )
    names, line = packed(project, out)
    assert names == {"code.py", "images/1.png", "id_rsa.pub", "auth.py"}
    assert "hidden (.aws, .env, .git, .ssh and 1 more)" in line
    assert "secrets (TLS.KEY, conf/aws.ini, credentials, images/id_ed25519 and 7 more)" in line


def test_stores_stay(project: Path, out: Path) -> None:
    for name in ("begun/artifacts/ingest/k", "swept/artifacts/train", "swept/sweeps", "mine/x"):
        (project / name).mkdir(parents=True)
        (project / name / "file").write_text("x")
    names, line = packed(project, out, job(storage=f"file://{project}/mine"))
    assert names == {"code.py", "images/1.png"}
    assert "stores (begun, mine, swept)" in line
    with pytest.raises(UserError, match=r"^--working-dir: '.*begun' is a store of cwerm"):
        pack(job(), project / "begun", out)


def test_data_that_would_not_be_there(project: Path, out: Path) -> None:
    (project / ".images").mkdir()
    (project / ".images" / "1.png").write_text("x")
    for source, is_there in (("./images", True), ("./code.py", True), ("./.images", False)):
        tree = parse_job({"storage": "s3://b/x", "data": {"source": source}})
        if is_there:
            packed(project, out, tree)
            continue
        with pytest.raises(UserError, match=r"^data.source: nothing of './.images' is shipped"):
            packed(project, out, tree)


def test_what_is_no_file(project: Path, out: Path) -> None:
    os.mkfifo(project / "pipe")
    (project / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        where = os.getcwd()
        os.chdir(project)  # a socket's address is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(where)
        names, line = packed(project, out)
    assert names == {"code.py", "images/1.png"}
    assert "no files (null, pipe, socket)" in line


def test_a_name_that_is_not_utf8(project: Path, out: Path) -> None:
    (project / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    with pytest.raises(UserError, match=r"^--working-dir: the name 'caf\\xe9.txt' is not UTF-8"):
        pack(job(), project, out)


def test_names_of_every_alphabet(project: Path, out: Path) -> None:
    odd = {"é ü.txt", "\u4e2d.txt", "a\nb.txt", "[x].txt"}
    for name in odd:
        (project / name).write_text("x")
    assert packed(project, out)[0] == odd | {"code.py", "images/1.png"}


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="root reads all")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_can_not_be_read(project: Path, out: Path, kind: str) -> None:
    place = project / "private"
    place.mkdir() if kind == "folder" else place.write_text("x")
    place.chmod(0)
    is_root = os.geteuid() == 0
    for folder in (project, *project.parents, out):
        if is_root and folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o777)
    if is_root:
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match=r"^--working-dir: 'private' can't be read \(Perm"):
            pack(job(), project, out)
    finally:
        if is_root:
            os.seteuid(0)
        place.chmod(0o700)


def test_what_changes_or_goes_meanwhile(
    project: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cwerm.submission import shipped_files

    found = shipped_files.look(project)
    (project / "code.py").unlink()
    with zipfile.ZipFile(out / "a.zip", "w") as archive:
        shipped_files.write(found, archive, set())
        assert archive.namelist() == ["images/1.png"]
    assert found.told().endswith("; left out: gone meanwhile (code.py)")

    log = project / "log"
    log.write_bytes(bytes(2**20))
    ended = threading.Event()

    def write() -> None:
        with log.open("ab") as file:
            while not ended.is_set():
                file.write(bytes(2**16))
                file.flush()
                if file.tell() > 2**27:
                    file.truncate(2**20)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"'log' changed while it was packed"):
            pack(job(), project, out)
    finally:
        ended.set()
        thread.join()


def test_too_much_is_known_before_it_is_read(project: Path, out: Path) -> None:
    for name in ("a", "b"):
        with (project / name).open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(
        UserError, match=r"^--working-dir: .* holds 2097154 MiB and Ray takes at most"
    ):
        pack(job(), project, out)


def test_the_same_content_gives_the_same_archive(project: Path, out: Path) -> None:
    contents: list[Any] = [pack(job(), project, out).read_bytes() for _ in range(2)]
    assert contents[0] == contents[1]
