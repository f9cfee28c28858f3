# Sourced by the scripts here: the ways to run a suite, each a function that runs its arguments as a command.
# Deliberately knows nothing of the suites.
#
#   native   root of the host (only when started by root; native root is what the others are measured by)
#   user     an ordinary user of the host
#   plain    an ordinary user, umvu without modules
#   root     an ordinary user, root of a view with unrealuid, on the plain tree
#   cow      an ordinary user, root of a view with unrealuid and a copy-on-write union on /
#
# Needs: $work, a directory for what a run writes, and $umvu_dir, the directory with umvu and its tools.

# Where the run is started by root, the ordinary user is this one.
ordinary=${UMVU_TESTS_USER:-$(getent passwd 1000 | cut -d: -f1)}

as_ordinary() {
    if [[ $EUID -eq 0 ]]; then
        setpriv --reuid="$ordinary" --regid="$(id -g "$ordinary")" --init-groups --inh-caps=-all -- "$@"
    else
        "$@"
    fi
}

quoted() {
    printf '%q ' exec "$@"
}

run_native() { "$@"; }
run_user() { as_ordinary "$@"; }
run_plain() { as_ordinary "$umvu_dir/umvu" -N -- "$@"; }
run_root() { as_ordinary "$umvu_dir/umvu" -N -m unrealuid -- "$umvu_dir/vusu" -s /bin/bash -c "$(quoted "$@")"; }
run_cow() {
    as_ordinary mkdir -p "$work/upper"
    as_ordinary "$umvu_dir/umvu" -N -m viewfs -m unrealuid -- /bin/sh -c \
        '"$0/vumount" -t viewfs -o cow "$1" / && exec "$0/vusu" -s /bin/bash -c "$2"' \
        "$umvu_dir" "$work/upper" "$(quoted "$@")"
}

mode_is_possible() {
    case $1 in
    native) [[ $EUID -eq 0 ]] || { echo "native: left out: needs root"; return 1; } ;;
    user) ;;
    plain | root | cow)
        [[ -x $umvu_dir/umvu ]] || { echo "$1: $umvu_dir/umvu: not built: run 'cargo build --release'" >&2; exit 2; }
        ;;
    *) echo "$1: no such mode: native, user, plain, root, cow" >&2; exit 2 ;;
    esac
}

# compare EXPECTED ACTUAL [ONLY]: every line of both begins with a key; in EXPECTED a reason follows, in ACTUAL a detail.
# Prints what is not as expected, the first 40 of it, of keys that the extended regular expression ONLY matches; fails when
# there is any such thing.
compare() {
    local expected=$1 actual=$2
    awk -v expected="$expected" -v only="${3:-.}" '
        function say(line) { wrong++; if (wrong <= 40) print line }
        BEGIN {
            while ((getline line < expected) > 0) {
                if (line ~ /^#/ || line == "") continue
                key = line; sub(/ .*/, "", key); reason = line; sub(/^[^ ]* ?/, "", reason)
                if (reason == "") say(expected ": no reason: " key)
                known[key] = reason
            }
        }
        { key = $1; seen[key] = 1; if (!(key in known)) say("unexpected failure: " $0) }
        END {
            for (key in known) if (key ~ only && !(key in seen)) say("unexpected pass: " key " (" known[key] ")")
            if (wrong > 40) print "... and " wrong - 40 " more"
            exit wrong > 0
        }' "$actual"
}
