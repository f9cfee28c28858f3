//! Programs people use, doing their usual work: the place must not show.

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at EVERYWHERE {
        make_builds_in_parallel,
        git_commits_clones_and_merges,
        python_works_with_files_and_processes,
        gdb_runs_a_program_to_a_breakpoint,
        gdb_attaches_to_a_process,
        strace_traces_a_program,
        tar_packs_and_unpacks,
        rsync_copies_a_tree,
        sqlite_keeps_a_database,
        a_crash_leaves_a_core,
        fakeroot_shows_root,
        shells_glob_and_redirect,
        file_locks_of_flock_hold,
        timeouts_kill_what_hangs,
        find_deletes_a_tree,
        a_pipeline_of_many_works,
        proot_runs_inside,
        perl_reads_directories,
    }
}

fn make_builds_in_parallel(r: &Runner) {
    let script = r#"for i in $(seq 20); do echo "int f$i(void) { return $i; }" > f$i.c; done
        printf 'OBJS=%s\nlib.a: $(OBJS)\n\tar rc $@ $(OBJS)\n%%.o: %%.c\n\tcc -c -o $@ $<\n' "$(echo f{1..20}.o)" > Makefile
        make -s -j4; ar t lib.a | wc -l; make -s -j4 -q && echo up to date"#;
    assert_eq!(r.bash(script).line(), "20\nup to date");
}

fn git_commits_clones_and_merges(r: &Runner) {
    let script = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        git init -q -b main one; cd one; mkdir -p d/e; echo x > d/e/f; ln -s d/e/f l; git add .; git commit -qm first
        git checkout -q -b side; echo y > d/g; git add .; git commit -qm side; git checkout -q main; echo z > h; git add .; git commit -qm main
        git merge -q -m merge side; cd ..; git clone -q one two; cd two; git log --oneline | wc -l; git status --porcelain | wc -l
        git fsck 2>&1 | grep -c -e error -e missing || true; git gc -q; cat d/e/f d/g h; readlink l";
    assert_eq!(r.bash(script).line(), "4\n0\n0\nx\ny\nz\nd/e/f");
}

fn python_works_with_files_and_processes(r: &Runner) {
    let script = r#"
import os, subprocess, tempfile, shutil, multiprocessing, pathlib, asyncio, glob
with tempfile.TemporaryDirectory(dir='.') as d:
    p = pathlib.Path(d, 'a', 'b'); p.mkdir(parents=True); (p / 'c').write_text('x')
    shutil.copytree(d + '/a', d + '/copy', symlinks=True); assert os.path.exists(d + '/copy/b/c')
    assert [e.name for e in os.scandir(d + '/copy')] == ['b']
    assert sum(len(f) for _, _, f in os.walk(d)) == 2 and len(glob.glob(d + '/**/c', recursive=True)) == 2
assert subprocess.check_output(['echo', 'sub']) == b'sub\n'
def double(n): return n * 2
if __name__ == '__main__':
    with multiprocessing.Pool(4) as pool: assert pool.map(double, range(100)) == [2 * n for n in range(100)]
    async def run():
        return await (await asyncio.create_subprocess_exec('true')).wait()
    assert asyncio.run(run()) == 0
    print('done')
"#;
    let write = r#"cat > script.py; python3 script.py"#;
    assert_eq!(r.run_with_input(["bash", "-ec", write], script.as_bytes()).line(), "done");
}

fn gdb_runs_a_program_to_a_breakpoint(r: &Runner) {
    let script = "echo 'int add(int a, int b) { return a + b; } int main(void) { return add(2, 3) - 5; }' > p.c; cc -g -O0 -o p p.c
        gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'break add' -ex run -ex 'print a + b' -ex bt -ex continue ./p 2>&1";
    let told = r.bash(script).line();
    assert!(told.contains("$1 = 5") && told.contains("exited normally"), "{told}");
}

fn gdb_attaches_to_a_process(r: &Runner) {
    // A child of gdb's parent may be attached only where Yama allows it, so gdb's own child it is.
    let script = "gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'starti' -ex 'info proc' -ex 'kill' --args /bin/sleep 100 2>&1";
    let told = r.bash(script).line();
    assert!(told.contains("exe = '/usr/bin/sleep'") || told.contains("exe = '/bin/sleep'"), "{told}");
}

fn strace_traces_a_program(r: &Runner) {
    let told = r.bash("strace -f -o log -e trace=openat,execve sh -c 'cat /etc/passwd >/dev/null; true'; grep -c '\"/etc/passwd\", O_RDONLY) = ' log").line();
    assert_eq!(told, "1");
    let told =
        r.bash("strace -c -o counts ls / >/dev/null; grep -c -w -e openat -e execve -e getdents64 counts").line();
    assert_eq!(told, "3");
}

fn tar_packs_and_unpacks(r: &Runner) {
    let script = "mkdir -p a/b; echo x > a/b/c; ln -s b/c a/l; ln a/b/c a/h; chmod 741 a/b; mkfifo a/p; touch -d @1000 a/b/c
        tar cf t.tar a; mkdir out; tar xf t.tar -C out; tar df t.tar -C out && diff -r --no-dereference -x p a out/a && stat -c '%a %Y' out/a/b out/a/b/c | cut -c 1-8 | tail -1
        stat -c %h out/a/h";
    assert_eq!(r.bash(script).line(), "644 1000\n2");
}

fn rsync_copies_a_tree(r: &Runner) {
    let script = "mkdir -p a/b; for i in $(seq 50); do echo $i > a/b/$i; done; rsync -aHAX a/ c/; rsync -aHAX -i a/ c/ | wc -l; diff -r a c && echo same; rm a/b/7; rsync -a --delete a/ c/; ls c/b | wc -l";
    assert_eq!(r.bash(script).line(), "0\nsame\n49");
}

fn sqlite_keeps_a_database(r: &Runner) {
    let script = "import sqlite3\n\
        for mode in ('delete', 'wal'):\n\
        \u{20} c = sqlite3.connect('db.' + mode); c.execute('pragma journal_mode=' + mode)\n\
        \u{20} c.execute('create table t(x)'); c.executemany('insert into t values(?)', [(n,) for n in range(1000)]); c.commit()\n\
        \u{20} d = sqlite3.connect('db.' + mode); print(d.execute('select sum(x) from t').fetchone()[0]); c.close(); d.close()";
    assert_eq!(r.run(["python3", "-c", script]).line(), "499500\n499500");
}

fn a_crash_leaves_a_core(r: &Runner) {
    let script = "import os, signal, resource\n\
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, resource.getrlimit(resource.RLIMIT_CORE)[1]) if resource.getrlimit(resource.RLIMIT_CORE)[1] == -1 else (0, 0))\n\
        p = os.fork()\n\
        if p == 0: os.kill(os.getpid(), signal.SIGSEGV)\n\
        _, s = os.waitpid(p, 0); print(os.WTERMSIG(s), 'core' if resource.getrlimit(resource.RLIMIT_CORE)[0] and os.WCOREDUMP(s) else 'no core')";
    let told = r.run(["python3", "-c", script]).line();
    // Whether a core is written is the host's choice; it must be the same one everywhere.
    let outside = r.outside_text(&["python3", "-c", script]);
    assert_eq!(told, outside);
    assert!(told.starts_with("11 "), "{told}");
}

fn fakeroot_shows_root(r: &Runner) {
    let script = "fakeroot sh -c 'id -u; touch f; chown 33:44 f; stat -c %u:%g f'";
    assert_eq!(r.bash(script).line(), "0\n33:44");
}

fn shells_glob_and_redirect(r: &Runner) {
    let script = "mkdir d; touch d/{a,b,c}{1,2}; echo d/*1; echo d/[ab]?; cat <<< here; exec 5<>rw; echo x >&5; cat rw; shopt -s globstar; echo **/c2; [[ -d d && ! -e no ]] && echo tests";
    assert_eq!(r.bash(script).line(), "d/a1 d/b1 d/c1\nd/a1 d/a2 d/b1 d/b2\nhere\nx\nd/c2\ntests");
}

fn file_locks_of_flock_hold(r: &Runner) {
    let script = "for i in $(seq 10); do flock lock sh -c 'n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n' & done; wait; cat n
        flock lock flock -n lock true || echo held";
    assert_eq!(r.bash(script).line(), "10\nheld");
}

fn timeouts_kill_what_hangs(r: &Runner) {
    assert_eq!(r.run(["timeout", "0.2", "sleep", "1000"]).shell_status(), 124);
    assert_eq!(r.run(["timeout", "-s", "KILL", "0.2", "sh", "-c", "mkfifo f; cat f"]).shell_status(), 137);
}

fn find_deletes_a_tree(r: &Runner) {
    let script =
        "mkdir -p t/{1..20}/{1..10}; touch t/{1..20}/{1..10}/f; find t -type f | wc -l; find t -delete; ls | wc -l";
    assert_eq!(r.bash(script).line(), "200\n0");
}

fn a_pipeline_of_many_works(r: &Runner) {
    let mut script = "seq 1000".to_owned();
    script.push_str(&" | cat".repeat(50));
    script.push_str(" | tail -1");
    assert_eq!(r.bash(&script).line(), "1000");
}

fn proot_runs_inside(r: &Runner) {
    assert_eq!(r.run(["proot", "-0", "sh", "-c", "id -u; echo x > f; cat f"]).line(), "0\nx");
}

fn perl_reads_directories(r: &Runner) {
    let script = "opendir(D, '/'); @a = sort readdir D; print scalar(grep { /^(usr|etc|proc)$/ } @a), qq(\\n); print -d '/usr' ? 'dir' : 'none', qq(\\n); print join(',', (stat('/'))[2] & 07777), qq(\\n)";
    assert_eq!(r.run(["perl", "-e", script]).line(), "3\ndir\n493");
}
