//! A tree in the manner of Alpine, on a host with another libc: busybox, musl, programs and a library that are linked with
//! it, and make, which brings the host's libc along. It does the same by whichever door it is entered.

use std::ffi::OsString;
use std::fs;

use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at MOUNTING {
        chroot_enters_a_tree_of_musl,
        pivot_root_enters_a_tree_of_musl,
    }
    from_outside at ORDINARY {
        a_directory_of_musl_is_a_root,
        an_archive_of_musl_is_a_root,
    }
}

/// Makes the tree, as `tree`.
const TREE: &str = r##"
    mkdir -p tree/bin tree/dev tree/etc tree/lib tree/proc tree/root tree/src tree/tmp tree/usr/bin tree/usr/lib tree/var
    cp /bin/busybox tree/bin/busybox
    for applet in sh cat chmod cp cut date dirname env expr find grep head id ls mkdir mv printf pwd readlink rm sed seq sort \
        tail tar touch tr true uniq wc xargs; do ln -s busybox tree/bin/$applet; done
    cp -L /lib/ld-musl-x86_64.so.1 tree/lib; ln -s ld-musl-x86_64.so.1 tree/lib/libc.so
    printf 'root:x:0:0:root:/root:/bin/sh\nalpine:x:1234:5:A. Pine:/home/alpine:/bin/sh\n' > tree/etc/passwd
    printf 'root:x:0:\npines:x:5:alpine\n' > tree/etc/group
    cat > greet.c <<'C'
    #include <stdlib.h>
    const char *greet(void) { return getenv("GREETING"); }
C
    cat > tell.c <<'C'
    #include <dlfcn.h>
    #include <grp.h>
    #include <pthread.h>
    #include <pwd.h>
    #include <spawn.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/wait.h>
    #include <unistd.h>
    extern const char *greet(void);
    extern char **environ;
    static void *square(void *of) { return (void *)((long)of * (long)of); }
    int main(int argc, char **argv) {
        char exe[256] = "", line[256] = "";
        long sum = 0;
        pthread_t threads[4];
        readlink("/proc/self/exe", exe, sizeof exe - 1);
        struct passwd *who = getpwnam("alpine");
        printf("%s %s: %s %s\n", argv[0], exe, greet(), argc > 1 ? argv[1] : "nobody");
        printf("%d %s %s\n", who->pw_uid, who->pw_gecos, getgrgid(who->pw_gid)->gr_name);
        for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, square, (void *)(i + 1));
        for (int i = 0; i < 4; i++) { void *got; pthread_join(threads[i], &got); sum += (long)got; }
        void *library = dlopen("libgreet.so", RTLD_NOW);
        printf("%ld %s\n", sum, library && dlsym(library, "greet") ? "found" : dlerror());
        FILE *pipe = popen("echo from a pipe | tr a-z A-Z", "r");
        fgets(line, sizeof line, pipe);
        printf("%s%d\n", line, pclose(pipe));
        fflush(stdout);
        pid_t pid;
        char *words[] = { "sh", "-c", "exit 7", NULL };
        int status = 0;
        posix_spawnp(&pid, "sh", NULL, NULL, words, environ);
        waitpid(pid, &status, 0);
        printf("%d\n", WEXITSTATUS(status));
    }
C
    sed -i 's/^    //' greet.c tell.c
    musl-gcc -O1 -shared -fPIC -o tree/usr/lib/libgreet.so greet.c
    musl-gcc -O1 -o tree/usr/bin/tell tell.c -Ltree/usr/lib -lgreet
    musl-gcc -O1 -no-pie -o tree/usr/bin/tell-fixed tell.c -Ltree/usr/lib -lgreet
    cp $(type -P make) tree/bin
    for l in $(ldd $(type -P make) | grep -o '/[^ ]*'); do mkdir -p tree$(dirname $l); cp -Ln $l tree$l; done
    printf 'all: two\n\t@cat two\ntwo: one\n\tsed s/1/2/ one > two\none:\n\tGREETING=1 tell $@ | head -1 > one\n' > tree/src/Makefile
    printf '#!/usr/bin/tell an\n' > tree/usr/bin/script
    cat > tree/src/check <<'S'
    #!/bin/sh -e
    export PATH=/usr/bin:/bin GREETING=hello
    id -un; pwd; ls -d /lib /lib64 /usr/*
    tell world; tell-fixed; script | head -1
    seq 20 | sed 's/1/one/' | grep one | sort -r | tail -2 | tr '\n' ' '; echo
    find /usr -type f | sort | xargs ls -1 | wc -l
    cd /tmp; mkdir -p a/b; printf 'x\ny\nx\n' > a/b/c; tar -cf t.tar a; rm -r a; tar -xf t.tar; sort a/b/c | uniq -c | tr -s ' '
    cat > here <<E
    $(expr 6 '*' 7) $(cd /usr/lib; echo *)
    E
    cat here; (exit 3) || echo $?
    echo 'echo $0 $#' > s; chmod +x s; ./s 1 2; rm -r a t.tar here s
    /nosuch 2>/dev/null || echo $?
    cp /src/Makefile .; make -j2; rm one two Makefile; echo *
S
    sed -i 's/^    //' tree/src/check; chmod +x tree/src/check tree/usr/bin/script
"##;

/// What is told in the tree, wherever it is.
const TOLD: &str = "root
/
/lib
/lib64
/usr/bin
/usr/lib
tell /usr/bin/tell: hello world
1234 A. Pine pines
30 found
FROM A PIPE
0
7
tell-fixed /usr/bin/tell-fixed: hello nobody
1234 A. Pine pines
30 found
FROM A PIPE
0
7
/usr/bin/tell /usr/bin/tell: hello an
one0 one\x20
4
 2 x
 1 y
42 libgreet.so
3
./s 2
127
GREETING=1 tell one | head -1 > one
sed s/1/2/ one > two
tell /usr/bin/tell: 2 one
*";

/// Makes the tree and runs the rest of a script there.
fn with_tree(r: &Runner, script: &str) -> String {
    r.bash(&format!("set -eu\n{TREE}\n{script}")).line()
}

fn chroot_enters_a_tree_of_musl(r: &Runner) {
    assert_eq!(with_tree(r, "mount --rbind /proc tree/proc; chroot tree /src/check"), TOLD);
}

fn pivot_root_enters_a_tree_of_musl(r: &Runner) {
    let script = "ln -s busybox tree/bin/umount; mkdir tree/old
        unshare --mount sh -ec 'mount --bind tree tree; mount --rbind /proc tree/proc; cd tree; pivot_root . old; cd /
            exec /bin/sh -ec \"umount -l /old; test ! -e /old/tree; exec /src/check\"'";
    assert_eq!(with_tree(r, script), TOLD);
}

/// Runs umvu in the place: on the host, or stacked on a view.
fn umvu(r: &Runner, words: &[&str]) -> Finished {
    let line: Vec<OsString> = ["umvu", "-N"].iter().chain(words).map(Into::into).collect();
    r.run(line)
}

fn a_directory_of_musl_is_a_root(r: &Runner) {
    with_tree(r, "mkdir up");
    assert_eq!(umvu(r, &["-r", "tree", "/src/check"]).line(), TOLD);
    assert_eq!(umvu(r, &["-r", "tree", "--upper", "up", "/src/check"]).line(), TOLD);
}

fn an_archive_of_musl_is_a_root(r: &Runner) {
    with_tree(r, "tar -C tree -czf tree.tar.gz .");
    fs::remove_dir_all(r.dir().join("tree")).expect("the tree");
    assert_eq!(umvu(r, &["-r", "tree.tar.gz", "/src/check"]).line(), TOLD);
}
