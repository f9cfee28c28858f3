// flags: -pthread
// One thread flips a path between two names while another opens it: what comes is always one of both.
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[16] = "aaaa";
static volatile int done;

static void *flip(void *nothing)
{
	while (!done) {
		memcpy(path, "bbbb", 4);
		memcpy(path, "aaaa", 4);
	}
	return nothing;
}

int main(void)
{
	pthread_t thread;
	struct stat a, b, got;
	int strange = 0;

	close(open("aaaa", O_CREAT | O_RDWR, 0600));
	close(open("bbbb", O_CREAT | O_RDWR, 0600));
	stat("aaaa", &a);
	stat("bbbb", &b);
	pthread_create(&thread, NULL, flip, NULL);
	for (int i = 0; i < 5000; i++) {
		int fd = open(path, O_RDONLY);

		/* A torn name ("aabb") is missing, which is right. */
		if (fd < 0)
			continue;
		fstat(fd, &got);
		strange += got.st_ino != a.st_ino && got.st_ino != b.st_ino;
		close(fd);
	}
	done = 1;
	pthread_join(thread, NULL);
	puts(strange ? "strange files" : "every file was one of the two");
	return strange != 0;
}
