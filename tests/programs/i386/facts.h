// Facts about system calls of 32-bit programs: the program is told the name of one and checks it.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct fact {
	const char *name;
	void (*check)(void);
};

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
			exit(1); \
		} \
	} while (0)

#define FAILS(number, call) \
	do { \
		long result; \
\
		errno = 0; \
		result = (call); \
		if (result != -1 || errno != (number)) { \
			fprintf(stderr, "%s:%d: %s gave %ld (errno %d)\n", __FILE__, __LINE__, #call, result, errno); \
			exit(1); \
		} \
	} while (0)

static inline int check_fact(const struct fact *facts, int argc, char **argv)
{
	for (; argc > 1 && facts->name; facts++) {
		if (strcmp(facts->name, argv[1]) == 0) {
			facts->check();
			puts("so it is");
			return 0;
		}
	}
	fprintf(stderr, "no such fact\n");
	return 2;
}
