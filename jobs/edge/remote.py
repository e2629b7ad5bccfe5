"""What runs on a host: POSIX shell scripts, with sha256sum, readlink, and a `mv` that has -T (GNU, BusyBox).

Below the folder of a host:

    current -> releases/digits-3.7          what is used; changed by a rename
    releases/digits-3.7/                    files of a version, as brought by push 7
    releases/digits-3.7.sha256              their hashes, as `sha256sum -c` reads them
    releases/digits-3.7.before              what `current` was
    .parts/SHA256                           files that are not whole yet
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.base.errors import InvalidInput

DAMAGED = 3
"""Exit code of `complete` when parts were not what they are called."""
MARK = "qd-exit"
"""Begins the last line: without it, the link was lost."""
_RELEASE = re.compile(r"(.+)-(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Release:
    """The files of a version for one push: path -> (hexadecimal SHA-256, bytes)."""

    name: str
    files: Mapping[str, tuple[str, int]]

    @classmethod
    def of(
        cls, model: str, version: str, push: int, files: Mapping[str, tuple[str, int]]
    ) -> Release:
        """Raises InvalidInput for a name that no list of hashes can have."""
        odd = next((path for path in files if any(char in path for char in "\n\r\\")), None)
        if odd is not None:
            raise InvalidInput(f"{odd!r} cannot be sent: its name has a line break or a backslash")
        return cls(release_name(model, version, push), dict(files))

    @property
    def size(self) -> int:
        return sum(dict(self.files.values()).values())

    def hashes(self) -> str:
        return "".join(f"{sha}  ./{path}\n" for path, (sha, _) in sorted(self.files.items()))

    def parts(self) -> dict[str, int]:
        """SHA-256 -> bytes: the same file is sent once."""
        return dict(self.files.values())


def release_name(model: str, version: str, push: int) -> str:
    return f"{model}-{version}.{push}"


def version_of(release: str) -> str | None:
    """digits:3 for digits-3.7; None for what is no release of ours."""
    found = _RELEASE.fullmatch(release)
    return f"{found[1]}:{found[2]}" if found else None


def _in(path: str, body: str, *, make: bool = True) -> str:
    """A script that runs in the folder, and says how it ended."""
    place = shlex.quote(path)
    begin = f"mkdir -p {place} && cd {place}" if make else f"cd {place}"
    return (
        f"export LC_ALL=C; (umask 022; {begin} && {{\n{body}\n}}); code=$?; echo; echo {MARK} $code"
    )


def sizes(path: str) -> str:
    """Reads hashes, one a line; writes the bytes that there are of each."""
    return _in(
        path,
        "mkdir -p .parts releases && while read -r sha; do\n"
        'if [ -f ".parts/$sha" ]; then wc -c < ".parts/$sha"; else echo 0; fi; done',
    )


def append(path: str, sha: str, offset: int) -> str:
    """Reads bytes that follow the first `offset`. Another one that still writes there has lost: what it
    adds makes the hash wrong, and the part is sent again."""
    part = shlex.quote(f".parts/{sha}")
    begin = f": > {part}" if not offset else f'[ "$(wc -c < {part})" -eq {offset} ]'
    return _in(path, f"{begin} && cat >> {part}")


def complete(path: str, release: Release) -> str:
    """Reads `hashes`; makes the release of the parts. Writes `bad SHA` for parts that are not what they are
    called, and removes them. Does nothing when the release is there already, and whole."""
    name = shlex.quote(release.name)
    return _in(
        path,
        f"""name={name}; new="releases/.$name"; rm -rf "$new"; cat > "releases/$name.list" || exit 1
if [ -d "releases/$name" ] && (cd "releases/$name" && sha256sum -c ../"$name.sha256" > /dev/null 2>&1); then
exit 0; fi
bad=0
for part in $(cut -c1-64 "releases/$name.list" | sort -u); do
if [ "$(sha256sum < ".parts/$part" | cut -c1-64)" != "$part" ]; then
echo "bad $part"; rm -f ".parts/$part"; bad=1; fi; done
[ $bad = 0 ] || exit {DAMAGED}
mkdir "$new" || exit 1
while IFS= read -r line; do
sha=$(printf %s "$line" | cut -c1-64); file=${{line#*  ./}}
case $file in */*) mkdir -p "$new/${{file%/*}}" || exit 1;; esac
cp ".parts/$sha" "$new/$file" || exit 1
done < "releases/$name.list"
(cd "$new" && sha256sum -c "../$name.list" > /dev/null) || exit 1
mv -f "releases/$name.list" "releases/$name.sha256" && sync && rm -rf "releases/$name" &&
mv -T "$new" "releases/$name" && rm -rf .parts""",
    )


def switch(path: str, release: str) -> str:
    """Makes `current` the release, by a rename; what it was is written down first, once."""
    name = shlex.quote(release)
    return _in(
        path,
        f"""name={name}; now=$(readlink current)
[ -e current ] && [ ! -L current ] && {{ echo "current is no link"; exit 4; }}
[ "$now" = "releases/$name" ] && exit 0
before="releases/$name.before"; printf '%s' "$now" > "$before.new" && mv -f "$before.new" "$before" &&
ln -sfn "releases/$name" .current.new && mv -T .current.new current && sync""",
    )


def back(path: str, release: str) -> str:
    """Makes `current` what it was before the release; nothing when it is not the release."""
    name = shlex.quote(release)
    return _in(
        path,
        f"""name={name}
[ "$(readlink current)" = "releases/$name" ] || exit 0
before=$(cat "releases/$name.before")
if [ -z "$before" ]; then rm -f current
else ln -sfn "$before" .current.new && mv -T .current.new current; fi && sync""",
    )


def health(path: str, release: str, command: str) -> str:
    """Runs the command in the folder of the release that is used."""
    return _in(
        path,
        f"""out=$(pwd)/.health.$$; cd current/. || exit 1
RELEASE={shlex.quote(release)} sh -c {shlex.quote(command)} > "$out" 2>&1 < /dev/null; code=$?
tail -c 2000 "$out" | sed 's/^/| /'; rm -f "$out"; exit $code""",
    )


def look(path: str) -> str:
    """Writes what `current` is, and, of its files, those that are altered, missing or unknown."""
    return _in(
        path,
        """now=$(readlink current); name=${now#releases/}; have=$(pwd)/.have.$$; echo "current $name"
if [ -f "releases/$name.sha256" ] && cd "releases/$name"; then
sha256sum -c "../$name.sha256" 2> /dev/null | sed -n 's/^\\(.*\\): FAILED.*/altered \\1/p'
cut -c67- "../$name.sha256" | sort > "$have"
find . ! -type d | sort | comm -13 "$have" - | sed 's/^/unknown /'
rm -f "$have"
elif [ -n "$now" ]; then echo "altered the release, or the list of its hashes"; fi""",
        make=False,
    )


def prune(path: str, release: str, keep: int) -> str:
    """Removes releases that are neither used, nor what was used before, beside the newest few."""
    name = shlex.quote(release)
    return _in(
        path,
        f"""name={name}; now=$(readlink current); before=$(cat "releases/$name.before" 2> /dev/null); seen=0
for old in $(ls -t releases | grep '\\.sha256$'); do old=${{old%.sha256}}; seen=$((seen + 1))
if [ $seen -gt {keep} ] && [ "releases/$old" != "$now" ] && [ "releases/$old" != "$before" ]; then
rm -rf "releases/$old" "releases/$old.sha256" "releases/$old.before"; fi; done""",
    )


def parsed(output: str) -> tuple[int, list[str]] | None:
    """The exit code and the lines before it; None when the link was lost before the end."""
    lines = output.splitlines()
    if not lines or not lines[-1].startswith(f"{MARK} "):
        return None
    code = lines[-1].removeprefix(f"{MARK} ")
    return (int(code), [line for line in lines[:-1] if line]) if code.isdigit() else None


@dataclass(frozen=True, slots=True)
class Looked:
    """What a host has. `release` is empty where there is none."""

    release: str
    altered: Sequence[str] = ()
    unknown: Sequence[str] = ()


def looked(lines: Sequence[str]) -> Looked:
    """What `look` wrote."""
    of: dict[str, list[str]] = {"current": [], "altered": [], "unknown": []}
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind in of:
            of[kind].append(rest.removeprefix("./"))
    release = next(iter(of["current"]), "")
    return Looked(release, tuple(of["altered"]), tuple(of["unknown"]))
