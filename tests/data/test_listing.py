"""What lies in a folder beside ordinary images: links, pipes, side files, folders of systems."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from cwerm.data import Sample, Source, open_source
from cwerm.data.files.listing import list_files
from cwerm.errors import UserError, shown


def fill(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def samples(source: Source) -> dict[str, Sample]:
    return {s.path: s for chunk in source.chunks("train", 3) for s in source.read(chunk)}


def test_links_to_nothing_have_a_problem(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "dog/1.png")
    for index in range(40):
        os.symlink("../../.annex/none", tmp_path / f"dog/x{index}.png")
    (tmp_path / "dog/self").symlink_to("self")
    found = samples(open_source(str(tmp_path)))
    problems = Counter(sample.problem for sample in found.values())
    text = "link to nothing (../../.annex/none); fetch its content"
    assert problems == {"": 2, text: 40, "a link in a circle": 1}
    (tmp_path / "fish").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"fish' lies in no class folder \(link to nothing \(nowh"):
        open_source(str(tmp_path))


def test_pipes_and_sockets_are_not_opened(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "dog/1.png")
    os.mkfifo(tmp_path / "dog/pipe.png")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "dog/socket"))
        found = samples(open_source(str(tmp_path)))
    assert found["dog/pipe.png"].problem == "a named pipe, not a file"
    assert found["dog/socket"].problem == "a socket, not a file"
    with pytest.raises(UserError, match=r"pipe\.png' is a named pipe; give a folder or a file"):
        list_files(f"{tmp_path}/dog/pipe.png")


def test_folders_of_systems_are_left_out_and_told(tmp_path: Path) -> None:
    kept = [
        "cat/1.png",
        "cat/2.jpe",
        "dog/1",
        "dog/x.APNG",
        "dog/y.tga",
        "dog/z.HEIC",
        "dog/odd.odd",
    ]
    system = ["@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"]
    fill(tmp_path, *kept, *(f"{name}/cat/1.png" for name in [*system, ".AppleDouble"]))
    fill(
        tmp_path, *(f"cat/{name}/1.png" for name in ["@eaDir", "lost+found", ".ipynb_checkpoints"])
    )
    fill(
        tmp_path, "cat/Thumbs.db", "dog/._1.jpg", "dog/.DS_Store", "README", "labels.csv", "MD5SUMS"
    )
    fill(
        tmp_path, "dog/a.txt", "dog/b.TXT", "dog/c.xml", "dog/d.json", "dog/e.png.md5", "notes.odd"
    )
    source = open_source(str(tmp_path))
    assert sorted(samples(source)) == sorted(kept)
    (line,) = source.remarks()
    assert line.startswith("left out: ")
    assert set(line.removeprefix("left out: ").split(", ")) == {
        *(f"1 x folder {name}" for name in [*system[1:], ".AppleDouble", "lost+found"]),
        *("2 x folder @eaDir", "1 x folder .ipynb_checkpoints", "2 x hidden file", "2 x .txt"),
        *("1 x Thumbs.db", "1 x README", "1 x MD5SUMS", "1 x .csv", "1 x .xml", "1 x .json"),
        *("1 x .md5", "1 x .odd"),
    }


def test_links_in_a_circle_and_to_files_that_are_there(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "dog/1.png", "dog/2.png")
    (tmp_path / "cat/again").symlink_to(tmp_path)
    (tmp_path / "cat/here").symlink_to(".")
    (tmp_path / "dog/3.png").symlink_to("1.png")
    os.link(tmp_path / "dog/2.png", tmp_path / "dog/4.png")
    source = open_source(str(tmp_path))
    assert sorted(samples(source)) == [
        *("cat/1.png", "dog/1.png", "dog/2.png", "dog/3.png", "dog/4.png"),
    ]
    assert source.remarks() == [
        "left out: 2 x link in a circle",
        "2 file(s) are links to, or other names of, a file that is read too",
    ]


def test_names_that_are_no_utf8_or_steer_the_terminal(tmp_path: Path) -> None:
    for name in (b"cat/caf\xe9.png", b"cat/a\nb.png", b"d\xe9g/\x1b[31m.png", b"d\xe9g/[b]x.png"):
        fill(tmp_path, os.fsdecode(name))
    source = open_source(str(tmp_path))
    found = samples(source)
    assert set(found) == {
        *(r"cat/caf\xe9.png", r"cat/a\nb.png", r"d\xe9g/\x1b[31m.png", r"d\xe9g/[b]x.png"),
    }
    assert all(sample.image == b"x" for sample in found.values())
    assert source.class_names() == ["cat", r"d\xe9g"]
    assert len(source.fingerprint()) == 64
    assert shown("图 é مجموعة [x]") == "图 é مجموعة [x]"


def test_an_archive_as_source(tmp_path: Path) -> None:
    for name in ("flowers.zip", "flowers.tar.gz"):
        fill(tmp_path / name, name)
        for place in (tmp_path / name, tmp_path / name / name):
            with pytest.raises(
                UserError, match=rf"{name}' is an archive; unpack it and give the fo"
            ):
                open_source(str(place))


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "dog").chmod(0)
    if os.access(tmp_path / "dog", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UserError, match=r"can't be listed \(Permission denied at '.*dog'\); check"):
        open_source(str(tmp_path))
