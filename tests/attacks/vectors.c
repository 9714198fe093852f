/* One kind of thing that the kernel keeps for a process, as many as can be had, by many processes at
 * once: `vectors KIND PROCESSES [hold]` prints [how many were made, the error that ended it], unless
 * it dies of them. Each kind asks for several times of what a job may have.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20 };
static char block[MIB];
static long *made; /* by all processes together */
static int *refused;

/* Whether it was done; counts those that were, and keeps the error of the others. */
#define DO(call) ((call) < 0 ? (*refused = errno, 0) : (__sync_fetch_and_add(made, 1), 1))

static void pipes(int me) {
    int ends[2];
    while (!pipe(ends)) {
        fcntl(ends[1], F_SETFL, O_NONBLOCK);
        if (fcntl(ends[1], F_SETPIPE_SZ, MIB) < 0) *refused = errno;
        while (DO(write(ends[1], block, 65536)));
    }
    *refused = errno;
}
static void unix_buffers(int me) {
    int ends[2], size = 1 << 30;
    while (!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends)) {
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        setsockopt(ends[1], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        while (DO(write(ends[0], block, 65536)));
    }
    *refused = errno;
}
static void in_flight(int me) {
    /* A memfd of 16 KB, and one socket pair after another that holds the only descriptor. */
    int ends[2];
    for (int pairs = 0; pairs < 100; pairs++) {
        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends)) { *refused = errno; return; }
        for (;;) {
            int fd = memfd_create("x", 0);
            if (fd < 0) { *refused = errno; return; }
            write(fd, block, 16384);
            char space[CMSG_SPACE(sizeof fd)];
            struct iovec byte = {block, 1};
            struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1,
                                     .msg_control = space, .msg_controllen = sizeof space};
            struct cmsghdr *head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_SOCKET;
            head->cmsg_type = SCM_RIGHTS;
            head->cmsg_len = CMSG_LEN(sizeof fd);
            memcpy(CMSG_DATA(head), &fd, sizeof fd);
            int sent = DO(sendmsg(ends[0], &message, 0));
            close(fd);
            if (!sent) break;
        }
    }
}
static void epoll_items(int me) {
    int polls[100], count = 0;
    while (count < 100 && (polls[count] = epoll_create1(0)) >= 0) count++;
    for (;;) {
        int fd = eventfd(0, 0);
        if (fd < 0) { *refused = errno; return; }
        struct epoll_event event = {.events = EPOLLIN};
        for (int i = 0; i < count; i++)
            if (!DO(epoll_ctl(polls[i], EPOLL_CTL_ADD, fd, &event))) return;
    }
}
static void memfds(int me) {
    for (;;) {
        int fd = memfd_create("x", 0);
        if (fd < 0) { *refused = errno; return; }
        while (DO(write(fd, block, MIB)));
    }
}
static void shared(int me) {
    DO(syscall(SYS_shmget, 0, MIB, 01600));
    DO(syscall(SYS_semget, 0, 100, 01600));
    DO(syscall(SYS_msgget, 0, 01600));
    DO(syscall(SYS_mq_open, "q", O_CREAT | O_RDWR, 0600, 0));
}
static void page_tables(int me) {
    for (;;) {
        char *at = mmap(0, 1L << 36, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) { *refused = errno; return; }
        madvise(at, 1L << 36, MADV_NOHUGEPAGE);
        /* Reading maps the one page of zeros: only the tables cost something. */
        for (long step = 0; step < 1L << 36; step += 2 * MIB) {
            *(volatile char *)(at + step);
            ++*made;
        }
    }
}
static void dentries(int me) { /* of names that are not there, in a folder of the machine */
    char name[300];
    for (long i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "/usr/lib/%0200ld", me * 1000000L + i);
        if (access(name, F_OK) < 0 && errno == ENOENT) __sync_fetch_and_add(made, 1);
        else *refused = errno;
    }
}
static void names(int me) { /* links cost a dentry with a long name each, and no page */
    char name[300];
    close(open("/tmp/one", O_CREAT | O_WRONLY, 0600));
    for (long i = 0; ; i++) {
        snprintf(name, sizeof name, "/tmp/%0240ld", me * 1000000L + i);
        if (!DO(link("/tmp/one", name))) return;
    }
}
static void timers(int me) {
    struct sigevent nobody = {.sigev_notify = SIGEV_NONE};
    timer_t timer;
    while (*made < 1000000 && DO(syscall(SYS_timer_create, CLOCK_MONOTONIC, &nobody, &timer)));
}
static void signals(int me) {
    sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0);
    while (DO(sigqueue(getpid(), SIGRTMIN, (union sigval){0})));
}
static void filters(int me) {
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, 0x7fff0000};
    struct sock_fprog program = {1, &allow};
    DO(syscall(SYS_seccomp, 1, 0, &program));
    if (*refused == ENOSYS) DO(syscall(SYS_prctl, 22, 2, &program, 0, 0));
}
static void socket_filters(int me) {
    static struct sock_filter code[4096];
    for (int i = 0; i < 4096; i++) code[i] = (struct sock_filter){BPF_RET | BPF_K, 0, 0, 1};
    struct sock_fprog program = {4096, code};
    for (;;) {
        int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        if (fd < 0) { *refused = errno; return; }
        if (!DO(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program))) return;
    }
}
static void symlinks(int me) {
    static char target[4096]; memset(target, 'x', 4095);
    char name[64];
    for (long i = 0; ; i++) {
        snprintf(name, sizeof name, "/tmp/%d-%ld", me, i);
        if (!DO(symlink(target, name))) return;
    }
}
static void xattrs(int me) {
    close(open("/tmp/x", O_CREAT | O_WRONLY, 0600));
    DO(setxattr("/tmp/x", "user.x", block, 4096, 0));
    if (*refused == EOPNOTSUPP) DO(setxattr("/tmp/x", "security.x", block, 4096, 0));
}
static void locks(int me) {
    for (int file = 0; file < 240; file++) { /* few in each, since a file's are a list */
        char name[64];
        snprintf(name, sizeof name, "/tmp/l%d-%d", me, file);
        int fd = open(name, O_CREAT | O_RDWR, 0600);
        if (fd < 0) { *refused = errno; return; }
        for (int i = 0; i < 210; i++) {
            struct flock lock = {.l_type = F_WRLCK, .l_start = i * 2, .l_len = 1};
            if (!DO(fcntl(fd, F_SETLK, &lock))) return;
        }
    }
}
static void areas(int me) {
    for (;;) {
        int protection = *made & 1 ? PROT_READ : PROT_NONE; /* or they would be one */
        char *at = mmap(0, 4096, protection, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) { *refused = errno; return; }
        __sync_fetch_and_add(made, 1);
    }
}
static void watches(int me) {
    char name[64];
    int fd = inotify_init1(0);
    if (fd < 0) { *refused = errno; return; }
    for (long i = 0; ; i++) {
        snprintf(name, sizeof name, "/tmp/w%d-%ld", me, i);
        close(open(name, O_CREAT | O_WRONLY, 0600));
        if (!DO(inotify_add_watch(fd, name, IN_CREATE))) return;
    }
}
static void timer_files(int me) {
    while (DO(timerfd_create(CLOCK_MONOTONIC, 0)));
}
static void network(int me) { /* what is not charged must not be had */
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = 9, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
    if (udp < 0 || tcp < 0) return;
    DO(sendto(udp, block, 1000, 0, (void *)&to, sizeof to));
    if (*refused == ENETUNREACH) DO(connect(tcp, (void *)&to, sizeof to));
}
static void stacks(int me) {
    for (;;) {
        char *at = mmap(0, 64 * MIB, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_GROWSDOWN, -1, 0);
        if (at == MAP_FAILED) { *refused = errno; return; }
        for (long step = 0; step < 64 * MIB; step += 4096) { at[step] = 1; ++*made; }
    }
}

#define V(name) {#name, name}
static struct { const char *name; void (*attack)(int); } vectors[] = {
    V(pipes), V(unix_buffers), V(in_flight), V(epoll_items), V(memfds), V(shared), V(page_tables), V(dentries),
    V(names), V(timers), V(signals), V(filters), V(socket_filters), V(symlinks), V(xattrs), V(locks), V(areas),
    V(watches), V(timer_files), V(network), V(stacks),
};

int main(int count, char **words) {
    memset(block, 'x', sizeof block);
    made = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    refused = (int *)(made + 1);
    for (unsigned i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        if (strcmp(vectors[i].name, words[1])) continue;
        int many = atoi(words[2]), ends[2];
        pipe(ends);
        for (int me = 0; me < many; me++)
            if (fork() == 0) {
                close(ends[0]);
                signal(SIGPIPE, SIG_IGN);
                vectors[i].attack(me);
                close(ends[1]); /* done, and what it has it keeps */
                pause();
            }
        close(ends[1]);
        while (read(ends[0], block, 1) > 0);
        printf("[%ld, \"%s\"]\n", *made, *refused ? strerrorname_np(*refused) : "");
        fflush(stdout);
        if (words[3]) pause();
        kill(0, SIGKILL);
    }
    return 9;
}
