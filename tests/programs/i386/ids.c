// Users and groups in 16 and in 32 bits, and what else a process asks about itself.
#include "facts.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

static uint16_t short_id(uint32_t id)
{
	return id > 0xffff ? 65534 : id;
}

static void ids_agree(void)
{
	uint32_t wide[3], groups[256];
	uint16_t narrow[3], short_groups[256];
	int count, again;

	CHECK(syscall(SYS_getuid) == short_id(syscall(SYS_getuid32)));
	CHECK(syscall(SYS_geteuid) == short_id(syscall(SYS_geteuid32)));
	CHECK(syscall(SYS_getgid) == short_id(syscall(SYS_getgid32)));
	CHECK(syscall(SYS_getegid) == short_id(syscall(SYS_getegid32)));
	CHECK(syscall(SYS_getresuid32, &wide[0], &wide[1], &wide[2]) == 0 && wide[0] == getuid());
	CHECK(syscall(SYS_getresuid, &narrow[0], &narrow[1], &narrow[2]) == 0);
	CHECK(narrow[0] == short_id(wide[0]) && narrow[1] == short_id(wide[1]) && narrow[2] == short_id(wide[2]));
	CHECK(syscall(SYS_getresgid32, &wide[0], &wide[1], &wide[2]) == 0 && wide[0] == getgid());
	CHECK(syscall(SYS_getresgid, &narrow[0], &narrow[1], &narrow[2]) == 0 && narrow[2] == short_id(wide[2]));
	count = syscall(SYS_getgroups32, 256, groups);
	again = syscall(SYS_getgroups, 256, short_groups);
	CHECK(count >= 0 && count == again && syscall(SYS_getgroups, 0, NULL) == count);
	for (int i = 0; i < count; i++)
		CHECK(short_groups[i] == short_id(groups[i]));
}

static void in_child(void (*body)(void))
{
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		body();
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void becomes_others(void)
{
	uint16_t short_groups[3] = { 1, 65535, 3 };
	uint32_t groups[2] = { 5, 100000 }, wide[3];

	FAILS(EINVAL, syscall(SYS_setgroups, 3, short_groups));
	CHECK(syscall(SYS_setgroups, 1, short_groups) == 0 && syscall(SYS_getgroups32, 2, groups) == 1 && groups[0] == 1);
	groups[0] = 5;
	groups[1] = 100000;
	CHECK(syscall(SYS_setgroups32, 2, groups) == 0);
	CHECK(syscall(SYS_getgroups, 3, short_groups) == 2 && short_groups[0] == 5 && short_groups[1] == 65534);
	CHECK(syscall(SYS_setresgid, 0xffff, 7, -1) == 0 && getgid() == 0 && getegid() == 7);
	CHECK(syscall(SYS_setregid32, 100000, -1) == 0 && syscall(SYS_getgid) == 65534 && getgid() == 100000);
	CHECK(syscall(SYS_setreuid, 0xffff, 0) == 0);
	CHECK(syscall(SYS_setfsuid, 33) == 0 && syscall(SYS_setfsuid32, -1) == 33);
	CHECK(syscall(SYS_setresuid32, 100000, 0, 0) == 0 && syscall(SYS_getuid) == 65534);
	CHECK(syscall(SYS_setuid, 33) == 0);
	CHECK(syscall(SYS_getresuid32, &wide[0], &wide[1], &wide[2]) == 0);
	CHECK(wide[0] == 33 && wide[1] == 33 && wide[2] == 33);
	FAILS(EPERM, syscall(SYS_setuid32, 0));
}

// For root: all of these are his to change.
static void root_becomes_others(void)
{
	CHECK(getuid() == 0);
	in_child(becomes_others);
}

// For root: owners of more than 16 bits are told as nobody's by the old form.
static void root_gives_files_away(void)
{
	struct stat64 status;
	int fd = open("file", O_CREAT | O_WRONLY, 0644);

	CHECK(fd >= 0);
	CHECK(syscall(SYS_chown, "file", 33, 0xffff) == 0 && stat64("file", &status) == 0);
	CHECK(status.st_uid == 33 && status.st_gid == 0);
	CHECK(syscall(SYS_lchown, "file", 0xffff, 44) == 0 && stat64("file", &status) == 0 && status.st_gid == 44);
	CHECK(syscall(SYS_fchown, fd, 0x10005, 0xffff) == 0 && stat64("file", &status) == 0 && status.st_uid == 5);
	CHECK(syscall(SYS_chown32, "file", 100000, 200000) == 0 && stat64("file", &status) == 0);
	CHECK(status.st_uid == 100000 && status.st_gid == 200000);
	CHECK(syscall(SYS_fchown32, fd, -1, 7) == 0 && syscall(SYS_lchown32, "file", 8, -1) == 0);
	CHECK(syscall(SYS_fchownat, AT_FDCWD, "file", 70000, -1, 0) == 0 && stat64("file", &status) == 0);
	CHECK(status.st_uid == 70000 && status.st_gid == 7);
	CHECK(syscall(SYS_mknod, "device", S_IFCHR | 0600, 1 << 8 | 3) == 0 && stat64("device", &status) == 0);
	CHECK(status.st_rdev == (1 << 8 | 3) && S_ISCHR(status.st_mode));
}

static void names_of_the_system_agree(void)
{
	struct utsname wide;
	char narrow[5 * 65 + 1], first[5 * 9 + 1];

	memset(narrow, 'x', sizeof narrow);
	memset(first, 'x', sizeof first);
	CHECK(syscall(SYS_uname, &wide) == 0 && syscall(SYS_olduname, narrow) == 0);
	CHECK(memcmp(narrow, &wide, 5 * 65) == 0 && narrow[5 * 65] == 'x');
	CHECK(syscall(SYS_oldolduname, first) == 0 && first[5 * 9] == 'x');
	CHECK(strcmp(first, wide.sysname) == 0 && strncmp(first + 9, wide.nodename, 8) == 0 && first[17] == 0);
}

static void limits_agree(void)
{
	uint32_t wide[2], first[2], set[2] = { 100, 200 };
	uint64_t both[2];

	for (int which = 0; which < 16; which++) {
		CHECK(syscall(SYS_prlimit64, 0, which, NULL, both) == 0);
		CHECK(syscall(SYS_ugetrlimit, which, wide) == 0 && syscall(SYS_getrlimit, which, first) == 0);
		for (int i = 0; i < 2; i++) {
			CHECK(wide[i] == (both[i] > 0xffffffff ? 0xffffffff : both[i]));
			CHECK(first[i] == (both[i] > 0x7fffffff ? 0x7fffffff : both[i]));
		}
	}
	CHECK(syscall(SYS_setrlimit, RLIMIT_LOCKS, set) == 0);
	CHECK(syscall(SYS_prlimit64, 0, RLIMIT_LOCKS, NULL, both) == 0 && both[0] == 100 && both[1] == 200);
	set[0] = 300;
	FAILS(EINVAL, syscall(SYS_setrlimit, RLIMIT_LOCKS, set));
	FAILS(EFAULT, syscall(SYS_setrlimit, RLIMIT_LOCKS, 8));
	CHECK(access("/etc/passwd", R_OK) == 0);
}

static void a_process_asks_about_itself(void)
{
	struct { uint32_t version; int pid; } header = { 0x20080522, 0 };
	uint32_t data[6];

	CHECK(syscall(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && syscall(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
	CHECK(syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0) == 0 && syscall(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);
	FAILS(EINVAL, syscall(SYS_prctl, PR_SET_DUMPABLE, 2, 0, 0, 0));
	CHECK(syscall(SYS_capget, &header, data) == 0);
	CHECK((data[0] != 0) == (geteuid() == 0));
	CHECK(syscall(SYS_umask, 027) == 022 && syscall(SYS_umask, 022) == 027);
	CHECK(syscall(SYS_getppid) > 0 && syscall(SYS_gettid) == syscall(SYS_getpid));
	// A 64-bit kernel has no virtual 8086 mode, and its x32 calls are none of this entry.
	FAILS(ENOSYS, syscall(SYS_vm86old, 0));
	FAILS(ENOSYS, syscall(5000));
	FAILS(ENOSYS, syscall(0x40000000 | SYS_getpid));
}

static const struct fact facts[] = {
	{ "ids_agree", ids_agree },
	{ "root_becomes_others", root_becomes_others },
	{ "root_gives_files_away", root_gives_files_away },
	{ "names_of_the_system_agree", names_of_the_system_agree },
	{ "limits_agree", limits_agree },
	{ "a_process_asks_about_itself", a_process_asks_about_itself },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	return check_fact(facts, argc, argv);
}
