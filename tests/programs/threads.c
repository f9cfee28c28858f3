// flags: -pthread
// Many threads at once, each making, finding and removing files of its own.
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_barrier_t barrier;

static void *work(void *number)
{
	char one[32], two[32];
	struct stat status;

	snprintf(one, sizeof one, "one%ld", (long)number);
	snprintf(two, sizeof two, "two%ld", (long)number);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 20; i++) {
		int fd = open(one, O_CREAT | O_EXCL | O_WRONLY, 0600);

		if (fd < 0 || close(fd) != 0 || rename(one, two) != 0 || stat(two, &status) != 0 || unlink(two) != 0)
			return number;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 10;
	pthread_t *threads = calloc((size_t)count, sizeof *threads);
	long failed = 0;

	pthread_barrier_init(&barrier, NULL, (unsigned)count);
	for (long i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)(i + 1)) != 0)
			return 1;
	for (long i = 0; i < count; i++) {
		void *result;

		pthread_join(threads[i], &result);
		failed += result != NULL;
	}
	if (failed)
		printf("%ld threads failed\n", failed);
	else
		printf("%ld threads made and removed their files\n", count);
	return failed != 0;
}
