// flags:
// Says what a random sequence of calls does to a small tree: `random_calls SEED COUNT KIND`.
//
// The same seed gives the same calls, so two places that agree with each other print the same. KIND is `tree` (makes
// what another run starts from), `user` or `root` (which also changes owners and identities). Printed are results, not
// inode numbers or the present time: times that no call has set are `now`, hard links are told by their first name.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/stat.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define SLOTS 4

static uint64_t state;
static int slots[SLOTS];
static int base;
static int is_root, is_tree;

static unsigned below(unsigned limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 16) % limit;
}

static int one_in(unsigned n)
{
	return below(n) == 0;
}

// A path of one to three names, now and then with slashes and dots where few programs write them.
static char *path(void)
{
	static char texts[4][64];
	static int next;
	char *text = texts[next++ % 4];
	int length = 0;
	unsigned names = 1 + below(5) / 2;

	for (unsigned i = 0; i < names; i++) {
		if (i)
			length += sprintf(text + length, one_in(30) ? "//" : "/");
		length += sprintf(text + length, "%c", 'a' + below(4));
	}
	switch (below(30)) {
	case 0:
	case 1:
		strcat(text, "/");
		break;
	case 2:
		strcat(text, "/.");
		break;
	case 3:
		strcat(text, "/..");
		break;
	case 4:
		strcpy(text, "");
		break;
	}
	return text;
}

static int directory(void)
{
	int slot = slots[below(SLOTS)];

	return one_in(8) ? slot : AT_FDCWD;
}

static const char *from(int fd)
{
	static char text[4][8];
	static int next;
	char *told = text[next++ % 4];

	strcpy(told, "");
	for (int i = 0; i < SLOTS; i++)
		if (fd != -1 && fd == slots[i])
			sprintf(told, "[%d]", i);
	return told;
}

static void said(long result, const char *form, ...)
{
	int error = errno;
	va_list list;

	va_start(list, form);
	vprintf(form, list);
	va_end(list);
	if (result < 0)
		printf(" = %s\n", strerrorname_np(error));
	else
		printf(" = %ld\n", result);
}

static void describe(const struct stat *s)
{
	printf(" %06o", s->st_mode);
	if (S_ISREG(s->st_mode))
		printf(" links %ld", (long)s->st_nlink);
	if (!S_ISDIR(s->st_mode))
		printf(" size %ld", (long)s->st_size);
	if (is_root)
		printf(" %d:%d", s->st_uid, s->st_gid);
	if (S_ISCHR(s->st_mode) || S_ISBLK(s->st_mode))
		printf(" %d,%d", major(s->st_rdev), minor(s->st_rdev));
	if (s->st_mtime < 1000000)
		printf(" %ld", (long)s->st_mtime);
	else
		printf(" now");
}

static void contents(int fd)
{
	char bytes[256];
	ssize_t length = pread(fd, bytes, sizeof bytes, 0);
	unsigned sum = 0;

	for (ssize_t i = 0; i < length; i++)
		sum = sum * 31 + (unsigned char)bytes[i];
	said(length, " read %u", sum);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a + 1, *(char *const *)b + 1);
}

// The names of a directory in their order; the byte before each tells its type.
static int listing(int fd, char **names, int most)
{
	char bytes[8192];
	int count = 0;
	long length;

	lseek(fd, 0, SEEK_SET);
	while ((length = syscall(SYS_getdents64, fd, bytes, sizeof bytes)) > 0) {
		for (long at = 0; at < length;) {
			struct dirent64 *entry = (void *)(bytes + at);

			if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && count < most) {
				names[count] = malloc(strlen(entry->d_name) + 2);
				names[count][0] = 'A' + entry->d_type;
				strcpy(names[count++] + 1, entry->d_name);
			}
			at += entry->d_reclen;
		}
	}
	qsort(names, count, sizeof *names, by_name);
	return length < 0 ? -1 : count;
}

static struct {
	dev_t dev;
	ino_t ino;
	char name[128];
} seen[512];
static int seen_count;

static void dump(int at, const char *where)
{
	char *names[64];
	int count = listing(at, names, 64);

	if (count < 0)
		said(-1, "%s", where);
	for (int i = 0; i < count; i++) {
		char whole[128], text[256] = "";
		struct stat s;
		const char *first = NULL;

		snprintf(whole, sizeof whole, "%s/%s", where, names[i] + 1);
		if (fstatat(at, names[i] + 1, &s, AT_SYMLINK_NOFOLLOW)) {
			said(-1, "%s %c", whole, names[i][0]);
			free(names[i]);
			continue;
		}
		// Any type may be unknown to the listing.
		printf("%s %c", whole, names[i][0] == 'A' ? 'A' + (int)IFTODT(s.st_mode) : names[i][0]);
		describe(&s);
		for (int j = 0; j < seen_count && !first && S_ISREG(s.st_mode); j++)
			if (seen[j].dev == s.st_dev && seen[j].ino == s.st_ino)
				first = seen[j].name;
		if (first) {
			printf(" is %s", first);
		} else if (seen_count < 512) {
			seen[seen_count].dev = s.st_dev;
			seen[seen_count].ino = s.st_ino;
			strcpy(seen[seen_count++].name, whole);
		}
		if (S_ISLNK(s.st_mode) && readlinkat(at, names[i] + 1, text, sizeof text - 1) > 0)
			printf(" -> %s", text);
		if (S_ISDIR(s.st_mode) || S_ISREG(s.st_mode)) {
			int fd = openat(at, names[i] + 1, O_RDONLY | O_NOFOLLOW | O_NOATIME);
			ssize_t length;

			if (fd < 0) {
				said(-1, " open");
				free(names[i]);
				continue;
			}
			length = fgetxattr(fd, "user.x", text, sizeof text);
			if (length >= 0)
				printf(" x=%.*s", (int)length, text);
			if (S_ISREG(s.st_mode)) {
				contents(fd);
			} else {
				printf("\n");
				dump(fd, whole);
			}
			close(fd);
		} else {
			printf("\n");
		}
		free(names[i]);
	}
}

static void keep(int fd)
{
	int slot = below(SLOTS);

	if (fd < 0)
		return;
	if (slots[slot] >= 0)
		close(slots[slot]);
	slots[slot] = fd;
	printf("  kept %d\n", slot);
}

static void open_something(void)
{
	static const int choices[] = { O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NOFOLLOW, O_DIRECTORY, O_PATH, O_NOATIME };
	int dir = directory(), flags = one_in(2) ? O_RDWR : O_WRONLY, mode = 0600 | below(01000), fd;
	char *name = path();

	for (unsigned i = 0; i < sizeof choices / sizeof *choices; i++)
		if (one_in(i ? 6 : 2))
			flags |= choices[i];
	if (one_in(4))
		flags = O_RDONLY | O_DIRECTORY;
	if (one_in(12))
		flags = O_TMPFILE | O_RDWR | (one_in(3) ? O_EXCL : 0);
	fd = openat(dir, name, flags | O_NONBLOCK, mode);
	said(fd < 0 ? fd : 0, "open%s %s %o %o", from(dir), name, flags, mode);
	keep(fd);
}

static void read_something(void)
{
	int dir = directory(), flags = one_in(4) ? O_NOFOLLOW : 0;
	char *name = path();
	int fd = openat(dir, name, O_RDONLY | O_NONBLOCK | flags);

	said(fd < 0 ? fd : 0, "read%s %s %o", from(dir), name, flags);
	if (fd < 0)
		return;
	struct stat s;

	if (!fstat(fd, &s) && S_ISREG(s.st_mode))
		contents(fd);
	close(fd);
}

static void tell(int dir, char *name, int flags)
{
	struct stat s;
	int result = fstatat(dir, name, &s, flags);

	said(result, "stat%s %s %x", from(dir), name, flags);
	if (!result) {
		describe(&s);
		printf("\n");
	}
}

static void use_slot(void)
{
	int slot = below(SLOTS), fd = slots[slot], at = below(5), dir = directory();
	char text[64], *name = path();
	char *names[64];
	struct stat s;
	int count, flags;

	if (fd < 0)
		return;
	switch (below(10)) {
	case 0:
		said(pwrite(fd, "written", 1 + below(7), at), "pwrite [%d] %d", slot, at);
		break;
	case 1:
		said(write(fd, "appended", 1 + below(8)), "write [%d]", slot);
		break;
	case 2:
		said(ftruncate(fd, at), "ftruncate [%d] %d", slot, at);
		break;
	case 3:
		said(fstat(fd, &s), "fstat [%d]", slot);
		describe(&s);
		printf("\n");
		break;
	case 4:
		at = 0700 | below(010000);
		said(fchmod(fd, at), "fchmod [%d] %o", slot, at);
		break;
	case 5:
		said(fsetxattr(fd, "user.x", "slot", at > 4 ? 4 : at, 0), "fsetxattr [%d] %d", slot, at);
		break;
	case 6:
		sprintf(text, "/proc/self/fd/%d", fd);
		said(linkat(AT_FDCWD, text, dir, name, AT_SYMLINK_FOLLOW), "link [%d]%s %s", slot, from(dir), name);
		break;
	case 7:
		close(fd);
		slots[slot] = -1;
		break;
	case 8:
		if (fstat(fd, &s) || !S_ISDIR(s.st_mode))
			break;
		count = listing(fd, names, 64);
		said(count, "list [%d]", slot);
		for (int i = 0; i < count; i++) {
			printf(" %s", names[i]);
			free(names[i]);
		}
		printf("\n");
		break;
	case 9:
		flags = one_in(2) ? AT_EMPTY_PATH : 0;
		tell(fd, "", flags);
		break;
	}
}

static void times(void)
{
	int dir = directory(), flags = one_in(3) ? AT_SYMLINK_NOFOLLOW : 0, second = 1 + below(999999);
	char *name = path();
	struct timespec both[2] = { { second, 0 }, { second, 0 } };

	if (one_in(5))
		both[1].tv_nsec = UTIME_OMIT;
	if (one_in(5))
		both[0].tv_nsec = both[1].tv_nsec = UTIME_NOW;
	said(utimensat(dir, name, both, flags), "times%s %s %x %d", from(dir), name, flags, second);
}

static void attributes(void)
{
	char *name = path(), value[64];
	int flags = below(3), length = below(5);
	ssize_t got;

	switch (below(4)) {
	case 0:
		said(setxattr(name, "user.x", "value", length, flags), "setxattr %s %d %d", name, length, flags);
		break;
	case 1:
		got = lgetxattr(name, "user.x", value, length);
		said(got, "lgetxattr %s %d", name, length);
		break;
	case 2:
		said(removexattr(name, "user.x"), "removexattr %s", name);
		break;
	case 3:
		said(lsetxattr(name, "user.x", "v", 1, flags), "lsetxattr %s %d", name, flags);
		break;
	}
}

static void make_node(int dir, char *name)
{
	static const int kinds[] = { S_IFREG, S_IFIFO, S_IFSOCK, 0, S_IFDIR, S_IFLNK, S_IFCHR };
	int mode = kinds[below(is_root ? 7 : 6)] | 0600 | below(010000);

	said(mknodat(dir, name, mode, makedev(1, 3)), "mknod%s %s %o", from(dir), name, mode);
}

static void owners(void)
{
	int dir = directory(), flags = one_in(2) ? AT_SYMLINK_NOFOLLOW : 0, who;
	char *name = path();
	int uid = (int)below(4) - 1, gid = (int)below(4) - 1;

	if (!one_in(4)) {
		said(fchownat(dir, name, uid, gid, flags), "chown%s %s %d %d %x", from(dir), name, uid, gid, flags);
		return;
	}
	who = one_in(2) ? (int)below(3) : 0;
	said(setresuid(-1, 0, -1), "root");
	said(setresgid(-1, who, -1) | setresuid(-1, who, -1), "become %d", who);
}

static void names(void)
{
	int dir = directory(), other = directory(), flags;
	char *name = path(), *second = path();

	switch (below(9)) {
	case 0:
	case 1:
		flags = below(04000);
		said(mkdirat(dir, name, 0700 | flags), "mkdir%s %s %o", from(dir), name, flags);
		break;
	case 2:
		said(unlinkat(dir, name, AT_REMOVEDIR), "rmdir%s %s", from(dir), name);
		break;
	case 3:
		said(unlinkat(dir, name, 0), "unlink%s %s", from(dir), name);
		break;
	case 4:
	case 5:
		flags = one_in(2) ? 0 : below(4);
		said(syscall(SYS_renameat2, dir, name, other, second, flags), "rename%s %s%s %s %d", from(dir), name,
		     from(other), second, flags);
		break;
	case 6:
		flags = one_in(2) ? AT_SYMLINK_FOLLOW : 0;
		// Unions keep the names of one symbolic link together only once it is theirs.
		if (is_tree)
			flags = AT_SYMLINK_FOLLOW;
		said(linkat(dir, name, other, second, flags), "link%s %s%s %s %x", from(dir), name, from(other), second,
		     flags);
		break;
	case 7:
		said(symlinkat(name, other, second), "symlink %s%s %s", name, from(other), second);
		break;
	case 8:
		make_node(dir, name);
		break;
	}
}

static void other(void)
{
	int dir = directory(), flags = one_in(2) ? AT_SYMLINK_NOFOLLOW : 0, mode;
	char *name = path(), text[64];
	long length;

	switch (below(6)) {
	case 0:
		mode = (one_in(4) ? 0 : 0700) | below(010000);
		said(syscall(SYS_fchmodat2, dir, name, mode, flags), "chmod%s %s %o %x", from(dir), name, mode, flags);
		break;
	case 1:
		mode = below(6);
		said(truncate(name, mode), "truncate %s %d", name, mode);
		break;
	case 2:
		mode = below(8);
		said(syscall(SYS_faccessat2, dir, name, mode, flags), "access%s %s %d %x", from(dir), name, mode, flags);
		break;
	case 3:
		length = readlinkat(dir, name, text, 1 + below(20));
		said(length, "readlink%s %s", from(dir), name);
		break;
	case 4:
		said(chdir(name), "chdir %s", name);
		break;
	case 5:
		said(fchdir(base), "back");
		break;
	}
}

static void step(void)
{
	int dir = directory();

	switch (below(is_root ? 10 : 9)) {
	case 0:
		open_something();
		break;
	case 1:
		read_something();
		break;
	case 2:
		use_slot();
		break;
	case 3:
		times();
		break;
	case 4:
		attributes();
		break;
	case 5:
		tell(dir, path(), one_in(2) ? AT_SYMLINK_NOFOLLOW : 0);
		break;
	case 6:
	case 7:
		names();
		break;
	case 8:
		other();
		break;
	case 9:
		owners();
		break;
	}
}

static void whole(void)
{
	int fd = (fchdir(base), open(".", O_RDONLY | O_DIRECTORY));

	seen_count = 0;
	if (fd < 0)
		said(-1, "whole");
	else
		dump(fd, "");
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	state = 88172645463325252u + strtoul(argv[1], NULL, 0) * 7919;
	is_root = !strcmp(argv[3], "root");
	is_tree = !strcmp(argv[3], "tree");

	if (is_root && setgroups(0, NULL))
		return 2;

	for (int i = 0; i < SLOTS; i++)
		slots[i] = -1;
	for (int i = 0; i < 20; i++)
		below(2);
	umask(022);
	base = open(".", O_RDONLY | O_DIRECTORY);
	for (long i = 0; i < atol(argv[2]); i++) {
		if (!is_tree) {
			step();
			if (i % 20 == 19)
				whole();
			continue;
		}
		switch (below(4)) {
		case 0:
			names();
			break;
		case 1:
			open_something();
			use_slot();
			break;
		case 2:
			one_in(2) ? times() : attributes();
			break;
		case 3:
			mkdir(path(), 0755 | below(02000));
			break;
		}
	}
	if (is_root)
		said(setresuid(-1, 0, -1) | setresgid(-1, 0, -1), "root");
	whole();
	return 0;
}
