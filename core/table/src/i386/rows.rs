//! The one list of i386 system calls: number, name, and which x86_64 call each is.
//!
//! Almost every one is a call of x86_64 under another number, often in an older form: tier, handler and the kinds of the
//! arguments come from that call's row, so they are said once. It does not know how structures are laid out; a row only
//! says which generation of them the call takes.
//!
//! A row is `NUMBER NAME => MEANING;` where MEANING is one of these, optionally followed by a string literal that explains it:
//!
//! - `same`: the x86_64 call of the same name, structures as in `wide`;
//! - `first CALL`, `narrow CALL`, `wide CALL`: that x86_64 call, with structures of this [`Form`];
//! - `wide CALL(0, 1:2)`: likewise, but the arguments of the x86_64 call are these words, or two words that make one
//!   number, the lower first; arguments that are not listed are 0;
//! - `multiplex [VALUE CALL, ...]`: the first word says which call it is, the second where its words lie in memory; the
//!   kernel runs those that are not listed;
//! - `allow`: the kernel runs it; here stand calls whose structures or numbers no handler of the x86_64 call would know;
//! - `refuse ERRNO "reason"`: the filter answers with this error.

use super::{Meaning, Row, Word};

macro_rules! words {
    () => {
        None
    };
    ($($low:literal $(: $high:literal)?),*) => {
        Some(&[$(words!(one $low $($high)?)),*])
    };
    (one $low:literal) => {
        Word::One($low)
    };
    (one $low:literal $high:literal) => {
        Word::Two($low, $high)
    };
}

macro_rules! meaning {
    ($name:ident allow) => {
        Meaning::Native
    };
    ($name:ident same) => {
        Meaning::Call { name: stringify!($name), form: super::Form::Wide, words: None }
    };
    ($name:ident refuse $errno:ident) => {
        Meaning::Refused(linux_raw_sys::errno::$errno as i32)
    };
    ($name:ident first $call:ident $($words:tt)?) => {
        meaning!(@ First $call $($words)?)
    };
    ($name:ident narrow $call:ident $($words:tt)?) => {
        meaning!(@ Narrow $call $($words)?)
    };
    ($name:ident wide $call:ident $($words:tt)?) => {
        meaning!(@ Wide $call $($words)?)
    };
    ($name:ident multiplex [$($value:literal $call:ident),*]) => {
        Meaning::Multiplexed(&[$(($value, stringify!($call))),*])
    };
    (@ $form:ident $call:ident) => {
        Meaning::Call { name: stringify!($call), form: super::Form::$form, words: None }
    };
    (@ $form:ident $call:ident ($($words:tt)*)) => {
        Meaning::Call { name: stringify!($call), form: super::Form::$form, words: words!($($words)*) }
    };
}

macro_rules! note {
    () => {
        None
    };
    ($note:literal) => {
        Some($note)
    };
}

macro_rules! rows {
    ($($number:literal $name:ident => $how:ident $($call:ident)? $(($($words:tt)*))? $([$($listed:tt)*])? $($note:literal)?;)*) => {
        /// Every call, in ascending order of number.
        pub static ROWS: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            meaning: meaning!($name $how $($call)? $(($($words)*))? $([$($listed)*])?),
            note: note!($($note)?),
        }),*];
    };
}

rows! {
    0 restart_syscall => same;
    1 exit => same;
    2 fork => same;
    3 read => same;
    4 write => same;
    5 open => same;
    6 close => same;
    7 waitpid => wide wait4(0, 1, 2);
    8 creat => same;
    9 link => same;
    10 unlink => same;
    11 execve => same;
    12 chdir => same;
    13 time => allow;
    14 mknod => same;
    15 chmod => same;
    16 lchown => narrow lchown;
    17 break => refuse ENOSYS "the kernel does not implement it";
    18 oldstat => first stat;
    19 lseek => allow;
    20 getpid => same;
    21 mount => same;
    22 umount => wide umount2(0);
    23 setuid => narrow setuid;
    24 getuid => narrow getuid;
    25 stime => allow;
    26 ptrace => same;
    27 alarm => same;
    28 oldfstat => first fstat;
    29 pause => same;
    30 utime => narrow utime;
    31 stty => refuse ENOSYS "the kernel does not implement it";
    32 gtty => refuse ENOSYS "the kernel does not implement it";
    33 access => same;
    34 nice => allow;
    35 ftime => refuse ENOSYS "the kernel does not implement it";
    36 sync => same;
    37 kill => same;
    38 rename => same;
    39 mkdir => same;
    40 rmdir => same;
    41 dup => same;
    42 pipe => same;
    43 times => allow;
    44 prof => refuse ENOSYS "the kernel does not implement it";
    45 brk => same;
    46 setgid => narrow setgid;
    47 getgid => narrow getgid;
    48 signal => allow;
    49 geteuid => narrow geteuid;
    50 getegid => narrow getegid;
    51 acct => same;
    52 umount2 => same;
    53 lock => refuse ENOSYS "the kernel does not implement it";
    54 ioctl => same;
    55 fcntl => same;
    56 mpx => refuse ENOSYS "the kernel does not implement it";
    57 setpgid => same;
    58 ulimit => refuse ENOSYS "the kernel does not implement it";
    59 oldolduname => first uname;
    60 umask => same;
    61 chroot => same;
    62 ustat => same;
    63 dup2 => same;
    64 getppid => same;
    65 getpgrp => same;
    66 setsid => same;
    67 sigaction => allow;
    68 sgetmask => allow;
    69 ssetmask => allow;
    70 setreuid => narrow setreuid;
    71 setregid => narrow setregid;
    72 sigsuspend => allow;
    73 sigpending => allow;
    74 sethostname => same;
    75 setrlimit => same;
    76 getrlimit => narrow getrlimit;
    77 getrusage => allow;
    78 gettimeofday => allow;
    79 settimeofday => allow;
    80 getgroups => narrow getgroups;
    81 setgroups => narrow setgroups;
    82 select => allow;
    83 symlink => same;
    84 oldlstat => first lstat;
    85 readlink => same;
    86 uselib => refuse ENOSYS "the kernel does not implement it";
    87 swapon => same;
    88 reboot => same;
    89 readdir => first getdents(0, 1);
    90 mmap => allow;
    91 munmap => same;
    92 truncate => narrow truncate;
    93 ftruncate => narrow ftruncate;
    94 fchmod => same;
    95 fchown => narrow fchown;
    96 getpriority => same;
    97 setpriority => same;
    98 profil => refuse ENOSYS "the kernel does not implement it";
    99 statfs => narrow statfs;
    100 fstatfs => narrow fstatfs;
    101 ioperm => same;
    102 socketcall => multiplex [1 socket, 2 bind, 3 connect, 4 listen, 5 accept, 6 getsockname, 7 getpeername, 8 socketpair, 11 sendto, 12 recvfrom, 13 shutdown, 14 setsockopt, 15 getsockopt, 16 sendmsg, 17 recvmsg, 18 accept4, 19 recvmmsg, 20 sendmmsg];
    103 syslog => same;
    104 setitimer => allow;
    105 getitimer => allow;
    106 stat => narrow stat;
    107 lstat => narrow lstat;
    108 fstat => narrow fstat;
    109 olduname => narrow uname;
    110 iopl => same;
    111 vhangup => same;
    112 idle => refuse ENOSYS "the kernel does not implement it";
    113 vm86old => refuse ENOSYS "a 64-bit kernel does not implement it";
    114 wait4 => allow;
    115 swapoff => same;
    116 sysinfo => allow;
    117 ipc => allow "System V IPC has no file names";
    118 fsync => same;
    119 sigreturn => allow;
    120 clone => wide clone(0, 1, 2, 4, 3);
    121 setdomainname => same;
    122 uname => same;
    123 modify_ldt => allow;
    124 adjtimex => allow;
    125 mprotect => same;
    126 sigprocmask => allow;
    127 create_module => refuse ENOSYS "the kernel does not implement it";
    128 init_module => same;
    129 delete_module => same;
    130 get_kernel_syms => refuse ENOSYS "the kernel does not implement it";
    131 quotactl => same;
    132 getpgid => same;
    133 fchdir => same;
    134 bdflush => refuse ENOSYS "the kernel does not implement it";
    135 sysfs => same;
    136 personality => same;
    137 afs_syscall => refuse ENOSYS "the kernel does not implement it";
    138 setfsuid => narrow setfsuid;
    139 setfsgid => narrow setfsgid;
    140 _llseek => allow;
    141 getdents => narrow getdents;
    142 _newselect => allow;
    143 flock => same;
    144 msync => same;
    145 readv => allow;
    146 writev => allow;
    147 getsid => same;
    148 fdatasync => same;
    149 _sysctl => refuse ENOSYS "the kernel does not implement it";
    150 mlock => same;
    151 munlock => same;
    152 mlockall => same;
    153 munlockall => same;
    154 sched_setparam => same;
    155 sched_getparam => same;
    156 sched_setscheduler => same;
    157 sched_getscheduler => same;
    158 sched_yield => same;
    159 sched_get_priority_max => same;
    160 sched_get_priority_min => same;
    161 sched_rr_get_interval => allow;
    162 nanosleep => allow;
    163 mremap => same;
    164 setresuid => narrow setresuid;
    165 getresuid => narrow getresuid;
    166 vm86 => refuse ENOSYS "a 64-bit kernel does not implement it";
    167 query_module => refuse ENOSYS "the kernel does not implement it";
    168 poll => same;
    169 nfsservctl => refuse ENOSYS "the kernel does not implement it";
    170 setresgid => narrow setresgid;
    171 getresgid => narrow getresgid;
    172 prctl => same;
    173 rt_sigreturn => allow;
    174 rt_sigaction => allow;
    175 rt_sigprocmask => allow;
    176 rt_sigpending => allow;
    177 rt_sigtimedwait => allow;
    178 rt_sigqueueinfo => same;
    179 rt_sigsuspend => allow;
    180 pread64 => allow;
    181 pwrite64 => allow;
    182 chown => narrow chown;
    183 getcwd => same;
    184 capget => same;
    185 capset => same;
    186 sigaltstack => allow;
    187 sendfile => allow;
    188 getpmsg => refuse ENOSYS "the kernel does not implement it";
    189 putpmsg => refuse ENOSYS "the kernel does not implement it";
    190 vfork => same;
    191 ugetrlimit => wide getrlimit;
    192 mmap2 => allow;
    193 truncate64 => wide truncate(0, 1:2);
    194 ftruncate64 => wide ftruncate(0, 1:2);
    195 stat64 => wide stat;
    196 lstat64 => wide lstat;
    197 fstat64 => wide fstat;
    198 lchown32 => wide lchown;
    199 getuid32 => wide getuid;
    200 getgid32 => wide getgid;
    201 geteuid32 => wide geteuid;
    202 getegid32 => wide getegid;
    203 setreuid32 => wide setreuid;
    204 setregid32 => wide setregid;
    205 getgroups32 => wide getgroups;
    206 setgroups32 => wide setgroups;
    207 fchown32 => wide fchown;
    208 setresuid32 => wide setresuid;
    209 getresuid32 => wide getresuid;
    210 setresgid32 => wide setresgid;
    211 getresgid32 => wide getresgid;
    212 chown32 => wide chown;
    213 setuid32 => wide setuid;
    214 setgid32 => wide setgid;
    215 setfsuid32 => wide setfsuid;
    216 setfsgid32 => wide setfsgid;
    217 pivot_root => same;
    218 mincore => same;
    219 madvise => same;
    220 getdents64 => same;
    221 fcntl64 => wide fcntl;
    224 gettid => same;
    225 readahead => allow;
    226 setxattr => same;
    227 lsetxattr => same;
    228 fsetxattr => same;
    229 getxattr => same;
    230 lgetxattr => same;
    231 fgetxattr => same;
    232 listxattr => same;
    233 llistxattr => same;
    234 flistxattr => same;
    235 removexattr => same;
    236 lremovexattr => same;
    237 fremovexattr => same;
    238 tkill => same;
    239 sendfile64 => allow;
    240 futex => allow;
    241 sched_setaffinity => same;
    242 sched_getaffinity => allow;
    243 set_thread_area => allow;
    244 get_thread_area => allow;
    245 io_setup => allow;
    246 io_destroy => same;
    247 io_getevents => allow;
    248 io_submit => allow;
    249 io_cancel => allow;
    250 fadvise64 => allow;
    252 exit_group => same;
    253 lookup_dcookie => same;
    254 epoll_create => same;
    255 epoll_ctl => same;
    256 epoll_wait => same;
    257 remap_file_pages => same;
    258 set_tid_address => same;
    259 timer_create => allow;
    260 timer_settime => allow;
    261 timer_gettime => allow;
    262 timer_getoverrun => same;
    263 timer_delete => same;
    264 clock_settime => allow;
    265 clock_gettime => allow;
    266 clock_getres => allow;
    267 clock_nanosleep => allow;
    268 statfs64 => wide statfs(0, 2, 1);
    269 fstatfs64 => wide fstatfs(0, 2, 1);
    270 tgkill => same;
    271 utimes => narrow utimes;
    272 fadvise64_64 => allow;
    273 vserver => refuse ENOSYS "the kernel does not implement it";
    274 mbind => allow;
    275 get_mempolicy => allow;
    276 set_mempolicy => allow;
    277 mq_open => allow;
    278 mq_unlink => same;
    279 mq_timedsend => allow;
    280 mq_timedreceive => allow;
    281 mq_notify => allow;
    282 mq_getsetattr => allow;
    283 kexec_load => allow;
    284 waitid => allow;
    286 add_key => same;
    287 request_key => same;
    288 keyctl => allow;
    289 ioprio_set => same;
    290 ioprio_get => same;
    291 inotify_init => same;
    292 inotify_add_watch => same;
    293 inotify_rm_watch => same;
    294 migrate_pages => allow;
    295 openat => same;
    296 mkdirat => same;
    297 mknodat => same;
    298 fchownat => same;
    299 futimesat => narrow futimesat;
    300 fstatat64 => wide newfstatat;
    301 unlinkat => same;
    302 renameat => same;
    303 linkat => same;
    304 symlinkat => same;
    305 readlinkat => same;
    306 fchmodat => same;
    307 faccessat => same;
    308 pselect6 => allow;
    309 ppoll => allow;
    310 unshare => same;
    311 set_robust_list => allow;
    312 get_robust_list => allow;
    313 splice => same;
    314 sync_file_range => wide sync_file_range(0, 1:2, 3:4, 5);
    315 tee => same;
    316 vmsplice => allow;
    317 move_pages => allow;
    318 getcpu => same;
    319 epoll_pwait => allow;
    320 utimensat => narrow utimensat;
    321 signalfd => allow;
    322 timerfd_create => same;
    323 eventfd => same;
    324 fallocate => allow;
    325 timerfd_settime => allow;
    326 timerfd_gettime => allow;
    327 signalfd4 => allow;
    328 eventfd2 => same;
    329 epoll_create1 => same;
    330 dup3 => same;
    331 pipe2 => same;
    332 inotify_init1 => same;
    333 preadv => allow;
    334 pwritev => allow;
    335 rt_tgsigqueueinfo => allow;
    336 perf_event_open => same;
    337 recvmmsg => allow;
    338 fanotify_init => same;
    339 fanotify_mark => wide fanotify_mark(0, 1, 2:3, 4, 5);
    340 prlimit64 => same;
    341 name_to_handle_at => same;
    342 open_by_handle_at => same;
    343 clock_adjtime => allow;
    344 syncfs => same;
    345 sendmmsg => same;
    346 setns => same;
    347 process_vm_readv => allow;
    348 process_vm_writev => allow;
    349 kcmp => same;
    350 finit_module => same;
    351 sched_setattr => same;
    352 sched_getattr => same;
    353 renameat2 => same;
    354 seccomp => same;
    355 getrandom => same;
    356 memfd_create => same;
    357 bpf => same;
    358 execveat => same;
    359 socket => same;
    360 socketpair => same;
    361 bind => same;
    362 connect => same;
    363 listen => same;
    364 accept4 => same;
    365 getsockopt => same;
    366 setsockopt => allow;
    367 getsockname => same;
    368 getpeername => same;
    369 sendto => same;
    370 sendmsg => same;
    371 recvfrom => allow;
    372 recvmsg => allow;
    373 shutdown => same;
    374 userfaultfd => same;
    375 membarrier => same;
    376 mlock2 => same;
    377 copy_file_range => same;
    378 preadv2 => allow;
    379 pwritev2 => allow;
    380 pkey_mprotect => same;
    381 pkey_alloc => same;
    382 pkey_free => same;
    383 statx => same;
    384 arch_prctl => same;
    385 io_pgetevents => allow;
    386 rseq => same;
    393 semget => same;
    394 semctl => allow;
    395 shmget => same;
    396 shmctl => allow;
    397 shmat => allow;
    398 shmdt => same;
    399 msgget => same;
    400 msgsnd => allow;
    401 msgrcv => allow;
    402 msgctl => allow;
    403 clock_gettime64 => allow;
    404 clock_settime64 => allow;
    405 clock_adjtime64 => allow;
    406 clock_getres_time64 => allow;
    407 clock_nanosleep_time64 => allow;
    408 timer_gettime64 => allow;
    409 timer_settime64 => allow;
    410 timerfd_gettime64 => allow;
    411 timerfd_settime64 => allow;
    412 utimensat_time64 => wide utimensat;
    413 pselect6_time64 => allow;
    414 ppoll_time64 => allow;
    416 io_pgetevents_time64 => allow;
    417 recvmmsg_time64 => allow;
    418 mq_timedsend_time64 => allow;
    419 mq_timedreceive_time64 => allow;
    420 semtimedop_time64 => allow;
    421 rt_sigtimedwait_time64 => allow;
    422 futex_time64 => allow;
    423 sched_rr_get_interval_time64 => allow;
    424 pidfd_send_signal => same;
    425 io_uring_setup => same;
    426 io_uring_enter => same;
    427 io_uring_register => same;
    428 open_tree => same;
    429 move_mount => same;
    430 fsopen => same;
    431 fsconfig => same;
    432 fsmount => same;
    433 fspick => same;
    434 pidfd_open => same;
    435 clone3 => same;
    436 close_range => same;
    437 openat2 => same;
    438 pidfd_getfd => same;
    439 faccessat2 => same;
    440 process_madvise => allow;
    441 epoll_pwait2 => same;
    442 mount_setattr => same;
    443 quotactl_fd => same;
    444 landlock_create_ruleset => same;
    445 landlock_add_rule => same;
    446 landlock_restrict_self => same;
    447 memfd_secret => same;
    448 process_mrelease => same;
    449 futex_waitv => same;
    450 set_mempolicy_home_node => same;
    451 cachestat => same;
    452 fchmodat2 => same;
    453 map_shadow_stack => same;
    454 futex_wake => same;
    455 futex_wait => same;
    456 futex_requeue => same;
    457 statmount => same;
    458 listmount => same;
    459 lsm_get_self_attr => same;
    460 lsm_set_self_attr => same;
    461 lsm_list_modules => same;
    462 mseal => same;
    463 setxattrat => same;
    464 getxattrat => same;
    465 listxattrat => same;
    466 removexattrat => same;
    467 open_tree_attr => same;
    468 file_getattr => same;
    469 file_setattr => same;
    470 listns => same;
    471 rseq_slice_yield => same;
}
