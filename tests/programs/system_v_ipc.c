// Shared memory, semaphores and message queues of System V, found by their keys in another process.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

struct message {
	long type;
	char text[8];
};

static int memory = -1, semaphore = -1, queue = -1;

static void removed(void)
{
	shmctl(memory, IPC_RMID, NULL);
	semctl(semaphore, 0, IPC_RMID);
	msgctl(queue, IPC_RMID, NULL);
}

static void check(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		removed();
		exit(1);
	}
}

int main(void)
{
	key_t key = 0x75000000 + getpid();
	struct shmid_ds status;
	struct message got;
	struct sembuf down = { 0, -1, 0 }, up = { 0, 1, 0 };
	int ended;

	check((memory = shmget(key, 100, IPC_CREAT | IPC_EXCL | 0600)) >= 0, "shmget");
	check((semaphore = semget(key, 1, IPC_CREAT | IPC_EXCL | 0600)) >= 0, "semget");
	check((queue = msgget(key, IPC_CREAT | IPC_EXCL | 0600)) >= 0, "msgget");
	if (fork() == 0) {
		struct message sent = { 3, "queued" };
		char *there = shmat(shmget(key, 0, 0), NULL, 0);

		strcpy(there, "shared");
		_exit(msgsnd(msgget(key, 0), &sent, sizeof sent.text, 0) != 0 || semop(semget(key, 0, 0), &up, 1) != 0);
	}
	check(semop(semaphore, &down, 1) == 0, "semop");
	check(wait(&ended) > 0 && ended == 0, "the child");
	char *here = shmat(memory, NULL, SHM_RDONLY);
	check(here != (void *)-1 && strcmp(here, "shared") == 0, "shmat");
	check(msgrcv(queue, &got, sizeof got.text, 3, 0) == sizeof got.text && strcmp(got.text, "queued") == 0, "msgrcv");
	check(shmctl(memory, IPC_STAT, &status) == 0 && status.shm_nattch == 1 && status.shm_segsz == 100, "shmctl");
	removed();
	check(shmget(key, 0, 0) == -1 && errno == ENOENT, "what is removed is gone");
	puts(here);
	return 0;
}
