/* Threads with mutexes, conditions, barriers and cancellation; processes with shared memory. */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

int sum(const int *, int);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t gate;
static int done[4], ready;

static void *work(void *index) {
    pthread_barrier_wait(&gate);
    pthread_mutex_lock(&lock);
    done[(long)index] = (long)index + 1;
    ready++;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return 0;
}

static void *sleeper(void *unused) {
    pause();
    return unused;
}

int main(void) {
    pthread_t threads[4], asleep;
    void *end;
    pthread_barrier_init(&gate, 0, 4);
    for (long i = 0; i < 4; i++) pthread_create(&threads[i], 0, work, (void *)i);
    pthread_mutex_lock(&lock);
    while (ready < 4) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    pthread_create(&asleep, 0, sleeper, 0);
    pthread_cancel(asleep);
    pthread_join(asleep, &end);

    sem_t *semaphore = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sem_init(semaphore, 1, 0);
    if (fork() == 0) return sem_post(semaphore);
    sem_wait(semaphore);
    wait(0);
    printf("%d %d\n", sum(done, 4), end == PTHREAD_CANCELED);
    return 0;
}
