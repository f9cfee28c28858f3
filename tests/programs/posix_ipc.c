// POSIX shared memory and semaphores, whose names are files of /dev/shm, and message queues, whose names are no paths.
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char name[64];

static void check(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void in_child(void (*body)(void))
{
	int status;
	pid_t child = fork();

	check(child >= 0, "fork");
	if (child == 0) {
		body();
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child && status == 0, "child");
}

static char *map(int flags)
{
	int fd = shm_open(name, flags | O_RDWR, 0600);
	char *memory;

	check(fd >= 0, "shm_open");
	check(!(flags & O_CREAT) || ftruncate(fd, 4096) == 0, "ftruncate");
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(memory != MAP_FAILED, "mmap");
	close(fd);
	return memory;
}

static void write_memory(void)
{
	strcpy(map(0), "written");
}

static void post(void)
{
	sem_t *semaphore = sem_open(name, 0);

	check(semaphore != SEM_FAILED && sem_post(semaphore) == 0, "sem_post");
}

static void send(void)
{
	mqd_t queue = mq_open(name, O_WRONLY);

	check(queue >= 0 && mq_send(queue, "message", 8, 3) == 0, "mq_send");
}

int main(void)
{
	struct mq_attr attributes = { .mq_maxmsg = 2, .mq_msgsize = 64 };
	char text[64];
	unsigned priority;
	char *memory;
	sem_t *semaphore;
	mqd_t queue;

	snprintf(name, sizeof name, "/umvu-tests.%d", getpid());

	memory = map(O_CREAT | O_EXCL);
	check(shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600) < 0 && errno == EEXIST, "a second shm_open");
	in_child(write_memory);
	check(strcmp(memory, "written") == 0, "shared memory");
	check(shm_unlink(name) == 0 && shm_open(name, O_RDWR, 0) < 0 && errno == ENOENT, "shm_unlink");

	semaphore = sem_open(name, O_CREAT | O_EXCL, 0600, 0);
	check(semaphore != SEM_FAILED && sem_trywait(semaphore) < 0 && errno == EAGAIN, "sem_open");
	in_child(post);
	check(sem_wait(semaphore) == 0, "sem_wait");
	check(sem_unlink(name) == 0 && sem_open(name, 0) == SEM_FAILED && errno == ENOENT, "sem_unlink");

	queue = mq_open(name, O_CREAT | O_EXCL | O_RDONLY, 0600, &attributes);
	check(queue >= 0, "mq_open");
	in_child(send);
	check(mq_receive(queue, text, sizeof text, &priority) == 8 && priority == 3, "mq_receive");
	check(strcmp(text, "message") == 0, "message");
	check(mq_unlink(name) == 0 && mq_open(name, O_RDONLY) < 0 && errno == ENOENT, "mq_unlink");
	puts("shared");
	return 0;
}
