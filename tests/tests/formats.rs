//! Programs that a rule of binfmt is for: which interpreter runs them, with which arguments, and as whom.

use umvu_tests::{behaviours, program, Runner};

behaviours! {
    from_outside at INSIDE {
        a_program_is_known_by_its_first_bytes,
        a_program_is_known_by_its_extension,
        the_newest_rule_that_is_enabled_is_asked,
        the_first_argument_is_kept_on_demand,
        an_interpreter_can_be_opened_when_it_is_registered,
        an_interpreter_can_have_an_interpreter,
        an_interpreter_gets_the_program_on_demand,
        what_cannot_be_executed_is_told_as_ever,
        rules_hold_while_they_are_mounted,
        rules_below_a_path_are_for_programs_there,
        an_interpreted_program_can_be_debugged,
        programs_of_other_machines_run,
        programs_of_rarer_machines_run,
        machines_call_each_others_programs,
    }
    from_outside at PLAIN {
        a_root_of_another_machine_is_entered_by_an_option,
    }
    from_outside at ROOT {
        the_set_user_id_bit_counts_on_demand,
    }
    from_outside at COW_ROOT {
        the_tutorial_runs_foreign_programs,
    }
}

const MOUNTED: &str = "vu_insmod vubinfmt; m=/proc/sys/fs/binfmt_misc; vumount -t vubinfmt none $m
    program() { printf \"$2\" > $1; chmod +x $1; }
    interpreter() { printf '#!/bin/sh\\necho '$1' \"$@\"\\n' > $1; chmod +x $1; }\n";

fn bash(r: &Runner, script: &str) -> String {
    let said = r.bash(&format!("{MOUNTED}{script}")).line();
    said.replace(&*r.dir().to_string_lossy(), "HERE")
}

fn a_program_is_known_by_its_first_bytes(r: &Runner) {
    let script = "interpreter i; program a 'xxFORMat'; program b 'xxFORMbt'; program short 'xxF'; ln -s a l
        echo \":f:M:2:FORM\\x60\\x74:\\xff\\xff\\xff\\xff\\xf0\\xff:$PWD/i:\" > $m/register
        ./a; ./a 1 '2 3'; $PWD/b; ./l; ./short 2>/dev/null || echo other; sed 1d $m/f; rm a b short l i";
    let expected = "i ./a\ni ./a 1 2 3\ni HERE/b\ni ./l\nother\ninterpreter HERE/i\nflags: \noffset 2\n\
                    magic 464f524d6074\nmask fffffffff0ff";
    assert_eq!(bash(r, script), expected);
}

fn a_program_is_known_by_its_extension(r: &Runner) {
    let script = "interpreter i; program a.jar ''; program a.jar.x ''; cp /bin/echo e.jar
        echo \",f,E,,jar,,$PWD/i,\" > $m/register; ./a.jar 1; ./a.jar.x; ./e.jar echo; sed 1d $m/f; rm *";
    assert_eq!(bash(r, script), "i ./a.jar 1\ni ./e.jar echo\ninterpreter HERE/i\nflags: \nextension .jar");
}

fn the_newest_rule_that_is_enabled_is_asked(r: &Runner) {
    let script = "interpreter i; interpreter j; program a.x 'ABCD'
        echo \":i:E::x::$PWD/i:\" > $m/register; echo \":j:M::ABCD::$PWD/j:\" > $m/register
        ./a.x; echo 0 > $m/j; ./a.x; echo 1 > $m/j; ./a.x; echo -1 > $m/j; ./a.x; ls $m
        echo 0 > $m/status; ./a.x 2>/dev/null || echo none; echo 1 > $m/status; ./a.x; echo -1 > $m/status; ls $m; rm *";
    let expected = "j ./a.x\ni ./a.x\nj ./a.x\ni ./a.x\ni\nregister\nstatus\nnone\ni ./a.x\nregister\nstatus";
    assert_eq!(bash(r, script), expected);
}

fn the_first_argument_is_kept_on_demand(r: &Runner) {
    let script = "interpreter i; program a.x ''; echo \":f:E::x::$PWD/i:P\" > $m/register; (exec -a zero ./a.x 1)
        printf '#!./a.x opt\\n' > s; chmod +x s; ./s 2
        echo -1 > $m/f; echo \":f:E::x::$PWD/i:\" > $m/register; (exec -a zero ./a.x 1); ./s 2; rm *";
    assert_eq!(bash(r, script), "i HERE/a.x zero 1\ni ./a.x ./a.x opt ./s 2\ni HERE/a.x 1\ni ./a.x opt ./s 2");
}

fn an_interpreter_can_be_opened_when_it_is_registered(r: &Runner) {
    let script =
        "cp /bin/echo i; program a.x ''; { echo \":n:E::x::$PWD/none:F\" > $m/register || true; } 2>&1 | sed 's/.*: //'
        echo \":f:E::x::$PWD/i:F\" > $m/register; rm i; ./a.x 1; cp /bin/false i; ./a.x 2; ls $m; rm *";
    let expected = "No such file or directory\n./a.x 1\n./a.x 2\nf\nregister\nstatus";
    assert_eq!(bash(r, script), expected);
}

fn an_interpreter_can_have_an_interpreter(r: &Runner) {
    let script = "interpreter i; program a.x ''; program b.y ''; echo \":x:E::x::$PWD/i:\" > $m/register
        echo \":y:E::y::$PWD/a.x:\" > $m/register; ./b.y 1
        program c.z ''; echo \":z:E::z::$PWD/c.z:\" > $m/register; { ./c.z 2>&1 || true; } | sed 's/.*: //'; rm *";
    assert_eq!(bash(r, script), "i HERE/a.x ./b.y 1\nToo many levels of symbolic links");
}

fn an_interpreter_gets_the_program_on_demand(r: &Runner) {
    let interpreter = program("interpreter_of_binary");
    let script = format!(
        "program a 'FORM of a'; program b 'BORM of b'; program c 'CORM'; interpreter s; i={}
        echo \":a:M::FORM::$i:O\" > $m/register; echo \":b:M::BORM::$i:P\" > $m/register
        echo \":c:M::CORM::$PWD/s:O\" > $m/register
        ./a one; ./b two; (exec -a zero ./a three); python3 -c 'import os; os.execv(\"./c\", [\"c\"])' 2>&1 | tail -1 || true; rm a b c s",
        interpreter.display()
    );
    // exec_binprm of fs/exec.c: what is given the program's descriptor may not have an interpreter itself.
    let expected = "2 arguments, last one, flags 0, close-on-exec 0, reads FORM of a\n\
                    3 arguments, last two, flags 1, no descriptor\n\
                    2 arguments, last three, flags 0, close-on-exec 0, reads FORM of a\nOSError: [Errno 8] Exec format error";
    assert_eq!(bash(r, &script), expected);
}

fn what_cannot_be_executed_is_told_as_ever(r: &Runner) {
    let script = "program a.x ''; program b.y ''; program c.y ''; chmod -x c.y; touch plain
        echo \":x:E::x::$PWD/none:\" > $m/register; echo \":y:E::y::$PWD/plain:\" > $m/register
        for p in a.x b.y c.y; do python3 -c 'import os, sys
try: os.execv(sys.argv[1], sys.argv[1:])
except OSError as e: print(e.strerror)' ./$p; done; rm *";
    assert_eq!(bash(r, script), "No such file or directory\nPermission denied\nPermission denied");
}

fn rules_hold_while_they_are_mounted(r: &Runner) {
    let script = "interpreter i; interpreter j; program a.x 'nothing'; echo \":f:E::x::$PWD/i:\" > $m/register; mkdir n
        vumount -t binfmt_misc none n; echo \":f:E::x::$PWD/j:\" > n/register; ./a.x; vuumount n; ./a.x
        vuumount $m; ./a.x 2>/dev/null || echo none; vumount -t vubinfmt none $m; ls $m; rm -r *";
    assert_eq!(bash(r, script), "j ./a.x\ni ./a.x\nnone\nregister\nstatus");
}

fn rules_below_a_path_are_for_programs_there(r: &Runner) {
    let script = "interpreter i; interpreter j; mkdir in inside n; program in/a.x ''; program inside/a.x ''
        echo \":f:E::x::$PWD/i:\" > $m/register; vumount -t vubinfmt $PWD/in n; echo \":f:E::x::$PWD/j:\" > n/register
        in/a.x; inside/a.x; cd in; ./a.x; cd ..; vuumount n; in/a.x; rm -r *";
    assert_eq!(bash(r, script), "j in/a.x\ni inside/a.x\nj ./a.x\ni in/a.x");
}

fn an_interpreted_program_can_be_debugged(r: &Runner) {
    let script = "cp /bin/echo i; program a.x ''; echo \":f:E::x::$PWD/i:\" > $m/register
        strace -f -o log ./a.x 1; strace -f -o log sh -c \"$PWD/a.x 2; :\"; rm *";
    assert_eq!(bash(r, script), "./a.x 1\nHERE/a.x 2");
}

/// Tells its machine, arguments and a variable; with `!` and a command it runs that too.
const SPEAK: &str = r#"cat > speak.c <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
int main(int count, char **words) {
    struct utsname names;
    uname(&names);
    printf("%s:", names.machine);
    for (int i = 0; i < count; i++) printf(" %s", words[i]);
    printf(" %s\n", getenv("WORD") ? getenv("WORD") : "-");
    fflush(stdout);
    return count > 2 && !strcmp(words[1], "-c") ? system(words[2]) : 0;
}
END
"#;

fn programs_of_other_machines_run(r: &Runner) {
    let script = "arm-linux-gnueabi-gcc -static -o arm speak.c; aarch64-linux-gnu-gcc -static -o arm64 speak.c
        aarch64-linux-gnu-gcc -o dynamic speak.c; vuumount $m; vumount -t vubinfmt -o qemu none $m; export WORD=word
        ./arm 1 '2 3'; ./arm64; QEMU_LD_PREFIX=/usr/aarch64-linux-gnu ./dynamic; (exec -a zero ./arm)
        printf '#!./arm opt\\n' > s; chmod +x s; ./s 1; rm *";
    let expected = "armv7l: ./arm 1 2 3 word\naarch64: ./arm64 word\naarch64: ./dynamic word\narmv7l: zero word\n\
                    armv7l: ./arm opt ./s 1 word";
    assert_eq!(bash(r, &format!("{SPEAK}{script}")), expected);
}

fn programs_of_rarer_machines_run(r: &Runner) {
    let script = "vuumount $m; vumount -t vubinfmt -o qemu none $m; export WORD=word
        for machine in riscv64:riscv64 powerpc64le:ppc64le s390x:s390x; do
            target=${machine%:*}-linux-gnu; $target-gcc -static -o static speak.c; $target-gcc -o dynamic speak.c
            ./static 1; export QEMU_LD_PREFIX=/usr/$target; ./dynamic 2
            ./dynamic -c './static 3'
        done; rm *";
    let told = |m: &str| {
        format!("{m}: ./static 1 word\n{m}: ./dynamic 2 word\n{m}: ./dynamic -c ./static 3 word\n{m}: ./static 3 word")
    };
    let expected = ["riscv64", "ppc64le", "s390x"].map(told).join("\n");
    assert_eq!(bash(r, &format!("{SPEAK}{script}")), expected);
}

fn a_root_of_another_machine_is_entered_by_an_option(r: &Runner) {
    // Nothing in the tree is for this machine, the emulator is the host's.
    let script = "mkdir -p tree/bin; aarch64-linux-gnu-gcc -static -o tree/bin/speak speak.c
        umvu --norc --root tree --qemu /bin/speak 1
        umvu --norc --root tree --bare /bin/speak 1 2>/dev/null || echo none";
    let script = format!("set -eu; {SPEAK}{script}");
    assert_eq!(r.outside_text(&["bash", "-c", &script]), "aarch64: /bin/speak 1 -\nnone");
}

fn machines_call_each_others_programs(r: &Runner) {
    let script = "arm-linux-gnueabi-gcc -static -o arm speak.c; aarch64-linux-gnu-gcc -static -o arm64 speak.c
        vuumount $m; vumount -t vubinfmt -o qemu none $m
        ./arm -c 'uname -m; ./arm64 -c \"./arm 1; echo $0\"'; echo ./arm64 | xargs ./arm; rm *";
    let expected = "armv7l: ./arm -c uname -m; ./arm64 -c \"./arm 1; echo $0\" -\nx86_64\n\
                    aarch64: ./arm64 -c ./arm 1; echo sh -\narmv7l: ./arm 1 -\nsh\narmv7l: ./arm ./arm64 -";
    assert_eq!(bash(r, &format!("{SPEAK}{script}")), expected);
}

fn the_set_user_id_bit_counts_on_demand(r: &Runner) {
    let script = "echo 'int geteuid(void); int printf(const char *, ...);
        int main(void) { printf(\"%d\\n\", geteuid()); }' > i.c; cc -o i i.c; program a.x ''; program b.y ''
        chown nobody a.x b.y; chmod u+s a.x b.y; echo \":x:E::x::$PWD/i:\" > $m/register
        echo \":y:E::y::$PWD/i:C\" > $m/register; sed -n 3p $m/y; ./a.x; ./b.y; id -u nobody; rm *";
    assert_eq!(bash(r, script), "flags: OC\n0\n65534\n65534");
}

fn the_tutorial_runs_foreign_programs(r: &Runner) {
    let tutorial = r"vu_insmod vubinfmt
mount -t vubinfmt none /proc/sys/fs/binfmt_misc
echo ':ppc:M::\x7fELF\x01\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x14:\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff:/usr/bin/qemu-ppc:' \
     > /proc/sys/fs/binfmt_misc/register
echo ':arm:M::\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-arm:' \
     > /proc/sys/fs/binfmt_misc/register
uname -a > /dev/null
file meta/bash | grep -o 'ARM, EABI5'
";
    let before =
        "mkdir meta; arm-linux-gnueabi-gcc -static -o meta/bash speak.c; ln -sf qemu-arm-static /usr/bin/qemu-arm\n";
    let after = "./meta/bash -c \"ls -l /\" > said; head -1 said; grep -c ' usr$' said\n";
    let said = r.bash(&format!("{SPEAK}{before}{tutorial}{after}")).line();
    assert_eq!(said, "ARM, EABI5\narmv7l: ./meta/bash -c ls -l / -\n1");
}
