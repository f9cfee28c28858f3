// Prints, for each call, its price in nanoseconds: the median of batches.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BATCHES 21

static int zero;
static char page[4096];

static void do_stat(void)
{
	struct stat status;

	if (stat("/usr/include", &status) != 0)
		exit(1);
}

static void do_open(void)
{
	int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		exit(1);
	close(fd);
}

static void do_getuid(void)
{
	syscall(SYS_getuid);
}

static void do_getppid(void)
{
	syscall(SYS_getppid);
}

static void do_read(void)
{
	if (read(zero, page, sizeof page) != sizeof page)
		exit(1);
}

static void do_clock(void)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME, &time);
}

static int compare(const void *one, const void *two)
{
	double a = *(const double *)one, b = *(const double *)two;

	return a < b ? -1 : a > b;
}

static void measure(const char *name, void (*call)(void), int count)
{
	double batches[BATCHES];

	for (int batch = 0; batch < BATCHES; batch++) {
		struct timespec start, end;

		clock_gettime(CLOCK_MONOTONIC, &start);
		for (int i = 0; i < count; i++)
			call();
		clock_gettime(CLOCK_MONOTONIC, &end);
		batches[batch] = ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / count;
	}
	qsort(batches, BATCHES, sizeof *batches, compare);
	printf("%s %.1f\n", name, batches[BATCHES / 2]);
}

int main(void)
{
	zero = open("/dev/zero", O_RDONLY);
	measure("stat", do_stat, 500);
	measure("open+close", do_open, 500);
	measure("getuid", do_getuid, 500);
	measure("getppid", do_getppid, 20000);
	measure("read 4k", do_read, 20000);
	measure("clock_gettime", do_clock, 50000);
	return 0;
}
