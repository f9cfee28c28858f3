// What a new program is told about itself, by its stack, by the kernel and by /proc, checked for agreement. The first
// argument is the path that /proc/self/exe must lead to; what disagrees is printed, and nothing else but the last line.
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static int wrong;

#define CHECK(what, holds)                                                      \
	do {                                                                    \
		if (!(holds)) {                                                 \
			printf("wrong: %s (%s)\n", what, #holds);               \
			wrong = 1;                                              \
		}                                                               \
	} while (0)

static char text[1 << 20];

static size_t slurp(const char *path)
{
	int fd = open(path, O_RDONLY);
	size_t size = 0;
	ssize_t got;

	if (fd < 0)
		return 0;
	while ((got = read(fd, text + size, sizeof text - 1 - size)) > 0)
		size += (size_t)got;
	close(fd);
	text[size] = 0;
	return size;
}

static void strings_are_where_the_kernel_says(int argc, char **argv)
{
	size_t size = slurp("/proc/self/cmdline"), at = 0;

	for (int i = 0; i < argc; i++) {
		CHECK("/proc/self/cmdline", at < size && strcmp(text + at, argv[i]) == 0);
		at += strlen(argv[i]) + 1;
	}
	CHECK("size of /proc/self/cmdline", at == size);
	size = slurp("/proc/self/environ");
	at = 0;
	for (char **e = environ; *e; e++) {
		CHECK("/proc/self/environ", at < size && strcmp(text + at, *e) == 0);
		at += strlen(*e) + 1;
	}
	CHECK("size of /proc/self/environ", at == size);
	for (int i = 1; i < argc; i++)
		CHECK("arguments lie one behind the other", argv[i] == argv[i - 1] + strlen(argv[i - 1]) + 1);
	/* Behind their number, to which the stack pointer leads. */
	CHECK("the array of arguments is aligned", ((uintptr_t)argv & 15) == sizeof(long));
}

static void the_program_has_its_names(const char *exe, const char *called)
{
	char link[PATH_MAX] = { 0 }, name[17] = { 0 };
	const char *base = strrchr(called, '/') ? strrchr(called, '/') + 1 : called;
	const char *executed = (const char *)getauxval(AT_EXECFN);
	struct stat by_link, by_path;

	CHECK("readlink of /proc/self/exe", readlink("/proc/self/exe", link, sizeof link - 1) > 0 && strcmp(link, exe) == 0);
	CHECK("stat of /proc/self/exe", stat("/proc/self/exe", &by_link) == 0 && stat(exe, &by_path) == 0 &&
	      by_link.st_ino == by_path.st_ino && by_link.st_dev == by_path.st_dev);
	prctl(PR_GET_NAME, name);
	CHECK("name of the thread", strncmp(name, base, 15) == 0);
	slurp("/proc/self/comm");
	CHECK("/proc/self/comm", strncmp(text, name, strlen(name)) == 0 && text[strlen(name)] == '\n');
	CHECK("AT_EXECFN", executed && strcmp(executed, called) == 0);
}

static int first_object(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	*(struct dl_phdr_info *)data = *info;
	return 1;
}

static void the_vector_is_true(void)
{
	ElfW(Ehdr) header;
	const ElfW(Phdr) *headers = (const void *)getauxval(AT_PHDR);
	static ElfW(Phdr) in_file[64];
	static ElfW(auxv_t) vector[64];
	struct dl_phdr_info first = { 0 };
	int fd = open("/proc/self/exe", O_RDONLY), is_dynamic = 0;
	size_t size;

	CHECK("the program can be read", pread(fd, &header, sizeof header, 0) == sizeof header);
	CHECK("AT_PHNUM", getauxval(AT_PHNUM) == header.e_phnum && header.e_phnum <= 64);
	CHECK("AT_PHENT", getauxval(AT_PHENT) == sizeof *headers);
	size = header.e_phnum * sizeof *headers;
	CHECK("the headers can be read", pread(fd, in_file, size, (off_t)header.e_phoff) == (ssize_t)size);
	CHECK("AT_PHDR", memcmp(headers, in_file, size) == 0);
	for (int i = 0; i < header.e_phnum; i++)
		is_dynamic |= headers[i].p_type == PT_INTERP;
	dl_iterate_phdr(first_object, &first);
	CHECK("headers as the libc has them", first.dlpi_phdr == headers);
	CHECK("AT_ENTRY", getauxval(AT_ENTRY) == header.e_entry + first.dlpi_addr);
	CHECK("AT_BASE", (getauxval(AT_BASE) != 0) == is_dynamic);
	CHECK("AT_BASE is an object", !is_dynamic || memcmp((void *)getauxval(AT_BASE), ELFMAG, SELFMAG) == 0);
	CHECK("AT_RANDOM", getauxval(AT_RANDOM) != 0);
	CHECK("AT_SECURE", getauxval(AT_SECURE) == 0);
	CHECK("AT_PAGESZ", getauxval(AT_PAGESZ) == 4096);
	CHECK("AT_HWCAP", getauxval(AT_HWCAP) != 0 && getauxval(AT_PLATFORM) != 0);
	CHECK("the vDSO", getauxval(AT_SYSINFO_EHDR) != 0 &&
	      memcmp((void *)getauxval(AT_SYSINFO_EHDR), ELFMAG, SELFMAG) == 0);
	close(fd);
	fd = open("/proc/self/auxv", O_RDONLY);
	CHECK("/proc/self/auxv", read(fd, vector, sizeof vector) > 0);
	close(fd);
	for (ElfW(auxv_t) *v = vector; v->a_type != AT_NULL; v++)
		/* What glibc says of AT_HWCAP is its own. */
		CHECK("/proc/self/auxv", v->a_type == AT_HWCAP || getauxval(v->a_type) == v->a_un.a_val);
}

static char initialized[] = "data";
static char zeroes[3 << 20];

static void memory_is_laid_out(const char *exe)
{
	unsigned long code_start = 0, code_end = 0, stack_start = 0, data_start = 0, data_end = 0, brk_start = 0;
	uintptr_t here = (uintptr_t)memory_is_laid_out, entry = getauxval(AT_ENTRY);
	int field = 3, names_exe = 0, names_heap = 0, entry_is_mapped = 0, unclean = 0;
	char *rest, *end = (char *)syscall(SYS_brk, 0);
	uintptr_t top = (uintptr_t)end;

	slurp("/proc/self/stat");
	/* From the state on, which is the third field. */
	rest = strrchr(text, ')') + 2;
	for (char *word = strtok(rest, " "); word; word = strtok(NULL, " "), field++) {
		unsigned long value = strtoul(word, NULL, 10);

		code_start = field == 26 ? value : code_start;
		code_end = field == 27 ? value : code_end;
		stack_start = field == 28 ? value : stack_start;
		data_start = field == 45 ? value : data_start;
		data_end = field == 46 ? value : data_end;
		brk_start = field == 47 ? value : brk_start;
	}
	CHECK("code", code_start <= here && here < code_end);
	CHECK("data", data_start <= (uintptr_t)initialized && (uintptr_t)initialized < data_end);
	CHECK("stack", stack_start > (uintptr_t)&field && stack_start - (uintptr_t)&field < 1 << 20);
	CHECK("break", brk_start != 0 && brk_start <= top);
	CHECK("break grows", syscall(SYS_brk, end + 8192) == (long)(end + 8192) && (memset(end, 1, 8192), end[8191] == 1));
	for (size_t i = 0; i < sizeof zeroes; i++)
		unclean |= zeroes[i];
	CHECK("zeroes are zero", !unclean);
	slurp("/proc/self/maps");
	CHECK("nothing of the view shows", !strstr(text, "umvu:") && !strstr(text, "/.umvu-") && !strstr(text, "memfd"));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long low, high;
		char rights[5] = "";
		size_t length = strlen(line), wanted = strlen(exe);
		int is_exe = length > wanted && strcmp(line + length - wanted, exe) == 0;

		if (sscanf(line, "%lx-%lx %4s", &low, &high, rights) != 3)
			continue;
		names_exe |= is_exe;
		entry_is_mapped |= is_exe && low <= entry && entry < high && rights[2] == 'x';
		names_heap |= strstr(line, "[heap]") != NULL && low <= top && top < high;
		if (strstr(line, "[stack]"))
			CHECK("rights of the stack", (rights[2] == 'x') == EXECUTABLE_STACK);
		CHECK("writable code", EXECUTABLE_STACK || rights[1] != 'w' || rights[2] != 'x');
	}
	CHECK("maps name the program", names_exe);
	CHECK("the entry is in the program", entry_is_mapped);
	CHECK("maps show the heap", names_heap);
}

int main(int argc, char **argv)
{
	const char *called = argc > 2 ? argv[2] : argv[0];

	if (argc < 2)
		return 2;
	strings_are_where_the_kernel_says(argc, argv);
	the_program_has_its_names(argv[1], called);
	the_vector_is_true();
	memory_is_laid_out(argv[1]);
	if (!wrong)
		puts("told the truth");
	return wrong;
}
