# SPDX-License-Identifier: GPL-2.0-only
# Copyright: Contributors to the nvgrace.passthrough project
# shellcheck shell=sh disable=SC2154
#
# What the scripts here that keep something in the cache have in common. To be
# sourced, with $tests set to this directory and $self to the script's name.

cache=${NVGRACE_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nvgrace-passthrough}

fail() {
	echo "$self: $*" >&2
	exit 1
}

progress() {
	echo "$self: $*" >&2
}

# Leaves a directory in $work that goes when the script ends, however it does.
make_work() {
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' INT TERM
}

# Twelve digits that stand for what is read from standard input.
digest() {
	sha256sum | cut -c1-12
}

# The mirror that apt uses here; nothing where it uses none of Debian's, and
# mmdebstrap then takes its own default.
mirror() {
	if [ -n "${NVGRACE_DEBIAN_MIRROR:-}" ]; then
		echo "$NVGRACE_DEBIAN_MIRROR"
	elif command -v apt-get >/dev/null; then
		# shellcheck disable=SC2016 # apt's own variable
		apt-get indextargets --format '$(SITE)' 'Origin: Debian' \
			'Component: main' 'Label: Debian' | head -n 1
	fi
}

install_mmdebstrap() {
	command -v apt-get >/dev/null ||
		fail "mmdebstrap is missing and no apt-get here: install it by hand"
	progress "installing mmdebstrap on this machine"
	{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
		--no-install-recommends mmdebstrap debian-archive-keyring; } >/dev/null ||
		fail "mmdebstrap could not be installed, see above"
}

# Prints the directory $cache/$1-KEY. Where it does not exist, "$3..." makes
# it, called with a directory of another name that is renamed at the end, so
# that what a killed run leaves is never used. Directories of another key go,
# but for those that a command still runs in: see enter.sh.
cached() { # NAME KEY MAKE [ARGUMENT]...
	name=$1 dir=$cache/$1-$2
	shift 2
	mkdir -p "$cache"
	exec 9>"$cache/$name.lock"
	flock 9
	if [ ! -d "$dir" ] || [ -n "${NVGRACE_KMOD_FRESH:-}" ]; then
		rm -rf "$cache/tmp.$name".*
		new=$cache/tmp.$name.$$
		# Without the lock's descriptor: what is started may outlive us.
		("$@" "$new") >&2 9>&- || {
			rm -rf "$new"
			fail "$name could not be made, see above"
		}
		for old in "$cache/$name"-*; do
			[ -d "$old" ] || continue
			flock --nonblock "$old" rm -rf "$old" ||
				progress "$old is in use and stays"
		done
		mv -T "$new" "$dir"
	fi
	exec 9>&-
	echo "$dir"
}
