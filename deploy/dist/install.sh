#!/bin/sh
# Installs the coordinator and the worker from a release, without a compiler:
#   install.sh --from DIR   from a folder with the release's files, without a network
#   install.sh --url URL    from the address of a release's files
# See --help. Everything is unpacked, compared and started in a temporary folder, and then renamed:
# an installation that fails leaves the prefix as it was.
set -eu

usage() {
    cat <<'HELP'
Installs finetune's coordinator and worker.

Usage: install.sh --from DIR | --url URL [--prefix DIR] [--worker cpu|cuda|none]

  --from DIR     Folder with the files of a release: SHA256SUMS and the archives
  --url URL      Address of these files; needs curl or wget
  --prefix DIR   Where bin/ and lib/finetune/ go [default: ~/.local]
  --worker KIND  cpu: with libtorch. cuda: uses an installed torch, see README.md.
                 none: the coordinator alone [default: cpu]

Exit codes:
    0  installed
    1  failed; nothing was changed
    2  a flag is wrong
    3  a file does not match its checksum; nothing was changed
HELP
}

fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

from='' url='' prefix='' kind=cpu
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --from | --url | --prefix | --worker)
        if [ -z "${2:-}" ]; then fail "$1 needs a value; see --help" 2; fi
        case $1 in
        --from) from=$2 ;;
        --url) url=${2%/} ;;
        --prefix) prefix=$2 ;;
        --worker) kind=$2 ;;
        esac
        shift 2
        ;;
    *) fail "$1 is no flag; see --help" 2 ;;
    esac
done
[ -n "$from" ] || [ -n "$url" ] || fail "give --from DIR or --url URL; see --help" 2
[ -z "$from" ] || [ -z "$url" ] || fail "give --from or --url, not both" 2
case $kind in
cpu | cuda | none) ;;
*) fail "--worker is $kind; it is cpu, cuda or none" 2 ;;
esac
if [ -z "$prefix" ]; then
    [ -n "${HOME:-}" ] || fail "HOME is not set; name a folder with --prefix" 2
    prefix=$HOME/.local
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "this is $(uname -sm); the programs are for Linux x86_64"
for tool in tar gzip sha256sum mktemp readlink; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done

# In the prefix, because only a rename within one file system happens at once.
made=''
if [ ! -d "$prefix" ]; then
    made=yes
    mkdir -p "$prefix" || fail "cannot create $prefix; name another folder with --prefix"
fi
prefix=$(cd "$prefix" && pwd)
place=$prefix/lib/finetune
work=$(mktemp -d "$prefix/.finetune.XXXXXX") ||
    fail "cannot write to $prefix; name another folder with --prefix"
# Puts the former installation back, if this one ends between the two renames.
leave() {
    if [ -e "$work/former" ] && [ ! -e "$place" ]; then mv "$work/former" "$place"; fi
    rm -rf "$work"
    # Only an empty folder is removed.
    if [ -n "$made" ]; then rmdir "$prefix" 2>/dev/null || true; fi
}
trap leave EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fetch() {
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --output "$work/$1" "$url/$1"
    elif command -v wget >/dev/null; then
        wget -q -O "$work/$1" "$url/$1"
    else
        fail "--url needs curl or wget; or download the files, and use --from"
    fi || fail "cannot download $url/$1"
}

# A file of the release: its path.
file() {
    if [ -n "$url" ]; then
        [ -e "$work/$1" ] || fetch "$1"
        echo "$work/$1"
    else
        [ -e "$from/$1" ] || fail "$from has no $1"
        echo "$from/$1"
    fi
}

unpack() {
    line=$(grep -E "^[0-9a-f]{64} [ *]finetune-$1-[^ /]*-x86_64-linux\.tar\.gz\$" "$sums") ||
        fail "$sums names no archive of $1"
    [ "$(echo "$line" | wc -l)" -eq 1 ] || fail "$sums names several archives of $1"
    name=${line#* ?}
    archive=$(file "$name")
    actual=$(sha256sum <"$archive")
    [ "${actual%% *}" = "${line%% *}" ] || fail "$name does not match SHA256SUMS: its SHA-256 is \
${actual%% *}, not ${line%% *}; download it again" 3
    tar -xzf "$archive" -C "$work/new" --strip-components=1 --no-same-owner ||
        fail "cannot unpack $name into $prefix"
}

# A program that does not start here is not installed.
starts() {
    version=$("$work/new/bin/$1" --version 2>"$work/message") ||
        fail "the $1 does not start on this system: $(head -n 1 "$work/message")"
}

mkdir "$work/new"
sums=$(file SHA256SUMS)
unpack coordinator
starts coordinator
[ "$kind" = none ] || unpack "worker-$kind"
[ "$kind" != cpu ] || starts worker

# A file of the same name that something else installed is not replaced.
for program in coordinator worker; do
    link=$prefix/bin/$program
    if [ -e "$link" ] || [ -L "$link" ]; then
        [ "$(readlink "$link")" = "../lib/finetune/bin/$program" ] ||
            fail "$link exists and is not finetune's; remove it, or name another folder with --prefix"
    fi
done
mkdir -p "$prefix/bin" "$prefix/lib" || fail "cannot write to $prefix"
if [ -e "$place" ]; then mv "$place" "$work/former"; fi
mv "$work/new" "$place"
for program in coordinator worker; do
    if [ -e "$place/bin/$program" ]; then
        ln -sf "../lib/finetune/bin/$program" "$prefix/bin/$program"
    else
        rm -f "$prefix/bin/$program"
    fi
done

echo "installed finetune ${version##* } into $place, linked from $prefix/bin"
case :$PATH: in
*":$prefix/bin:"*) ;;
*) echo "add it to the search path: export PATH=\"$prefix/bin:\$PATH\"" ;;
esac
if [ "$kind" = none ]; then
    echo "start: coordinator --no-spawn --help"
else
    echo "start: coordinator --workers 2 --data demo"
fi
if [ "$kind" = cuda ] && ! "$place/bin/worker" --version >/dev/null 2>"$work/message"; then
    echo "the worker does not start yet: $(head -n 1 "$work/message")"
fi
undo="rm -r \"$place\" \"$prefix/bin/coordinator\""
[ "$kind" = none ] || undo="$undo \"$prefix/bin/worker\""
echo "undo: $undo"
