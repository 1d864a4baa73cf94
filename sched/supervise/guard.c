#include "sched/supervise/guard.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SWEEPS 200 /* a process that forks while it is swept is met in the next round */
#define SWEEP_PAUSE_MS 10
#define LAST_WAIT_MS 5000

struct rs_guard {
    pid_t pid;
    int pipe_fd; /* write end; its hang-up is what the guard waits for */
    int pid_fd;
};

/* Does /proc/PID/environ, a list of NUL-ended assignments, hold the mark? */
static bool has_mark(const char *environ_path, const char *mark, size_t mark_len)
{
    char buf[65536 + 1];
    size_t have = 0;
    rs_auto(rs_closep) int fd = open(environ_path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    for (;;) {
        ssize_t n = read(fd, buf + have, sizeof(buf) - 1 - have);

        if (n <= 0 && have == 0)
            return false;
        if (n > 0)
            have += (size_t)n;
        buf[have] = '\0';
        /* whole assignments; the last one may go on in the next piece */
        char *p = buf;
        char *end = buf + have;

        while (p < end) {
            char *nul = memchr(p, '\0', (size_t)(end - p));

            if (!nul && n > 0 && p > buf)
                break;
            if (strncmp(p, mark, mark_len) == 0 && p[mark_len] == '\0')
                return true;
            p = nul ? nul + 1 : end;
        }
        if (n <= 0)
            return false;
        have = (size_t)(end - p);
        memmove(buf, p, have);
    }
}

unsigned rs_guard_sweep(const char *instance, pid_t except)
{
    char mark[256];
    int n = snprintf(mark, sizeof(mark), RS_INSTANCE_ENV "=%s", instance);
    DIR *proc = opendir("/proc");
    unsigned found = 0;

    assert(n > 0 && (size_t)n < sizeof(mark));
    if (!proc)
        return 0;
    for (struct dirent *e; (e = readdir(proc));) {
        char path[300];
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);

        if (pid <= 1 || pid == except || pid == getpid())
            continue;
        snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
        if (has_mark(path, mark, (size_t)n) && kill(pid, SIGKILL) == 0)
            found++;
    }
    closedir(proc);
    return found;
}

static void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

static _Noreturn void guard_main(int fd, pid_t parent, const char *instance)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    char byte;
    ssize_t n;

    setsid();
    prctl(PR_SET_NAME, "rserve-guard");
    for (int s = 1; s < NSIG; s++)
        if (s != SIGCHLD)
            sigaction(s, &ignore, NULL);
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    /* A zombie has no environment, so it does not count as found again. */
    for (int i = 0; i < SWEEPS; i++) {
        if (rs_guard_sweep(instance, parent) == 0 && i > 0)
            break;
        pause_ms(SWEEP_PAUSE_MS);
    }
    _exit(0);
}

/* Keeps nothing of ours open: whoever waits for the end of our stdout must not wait for the guard. */
static void keep_only(int fd)
{
    int null_fd = open("/dev/null", O_RDWR);

    for (int i = 0; i < 3 && null_fd >= 0; i++)
        if (i != fd)
            dup2(null_fd, i);
    if (fd > 3)
        close_range(3, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
}

int rs_guard_new(struct rs_guard **ret, const char *instance, struct rs_error *err)
{
    pid_t parent = getpid();
    int p[2];
    pid_t pid;

    if (strlen(instance) > 128)
        return rs_error_set(err, RS_INVALID, "instance name longer than 128 bytes");
    if (pipe2(p, O_CLOEXEC) < 0)
        return rs_error_errno(err, errno, "pipe");
    pid = fork();
    if (pid < 0) {
        close(p[0]);
        close(p[1]);
        return rs_error_errno(err, errno, "fork");
    }
    if (pid == 0) {
        int rd = fcntl(p[0], F_DUPFD, 3);

        keep_only(rd);
        guard_main(rd, parent, instance);
    }
    close(p[0]);
    struct rs_guard *g = rs_alloc(sizeof(*g));

    g->pid = pid;
    g->pipe_fd = p[1];
    g->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    *ret = g;
    return 0;
}

void rs_guard_free(struct rs_guard *g)
{
    if (!g)
        return;
    close(g->pipe_fd);
    if (g->pid_fd >= 0) {
        struct pollfd ended = {.fd = g->pid_fd, .events = POLLIN};
        int r;

        do
            r = poll(&ended, 1, LAST_WAIT_MS);
        while (r < 0 && errno == EINTR);
        if (r == 0)
            kill(g->pid, SIGKILL);
        close(g->pid_fd);
    }
    while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(g);
}

pid_t rs_guard_pid(const struct rs_guard *g)
{
    return g->pid;
}
