#include "sched/supervise/spawn.h"

#include "core/base/alloc.h"
#include "core/base/cleanup.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_FDS 16 /* 0, 1, 2 and what a caller names */

static struct rs_list children = {&children, &children}; /* that are watched */

/* What the child needs, made before the fork: between fork and exec of a process with threads only
 * async-signal-safe calls are allowed, so the child allocates nothing. */
struct plan {
    const struct rs_spawn *spec;
    const char *program; /* argv[0] with its folder */
    int from[CHILD_FDS], as[CHILD_FDS];
    size_t n;
    int error_fd; /* write end, CLOEXEC */
    pid_t parent;
};

/* Sent by the child when it cannot become what it should be. */
struct failure {
    int sys_errno;
    char stage; /* 'c': cwd, 'x': exec, 'f': descriptors, 'p': parent is gone */
};

static int open_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* --- in the child --- */

static _Noreturn void fail(const struct plan *p, char stage)
{
    struct failure f = {.sys_errno = errno, .stage = stage};
    ssize_t unused = write(p->error_fd, &f, sizeof(f));

    (void)unused;
    _exit(127);
}

static void default_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int s = 1; s < NSIG; s++)
        sigaction(s, &dfl, NULL); /* those that have no default refuse; nothing to do about it */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Everything from `low` to `high` closes at exec. */
static void cloexec_range(unsigned low, unsigned high)
{
    if (low > high || close_range(low, high, CLOSE_RANGE_CLOEXEC) == 0)
        return;
    for (unsigned fd = low; fd <= high && fd < 65536; fd++) /* a kernel before 5.11 */
        fcntl((int)fd, F_SETFD, FD_CLOEXEC);
}

/* Moves every descriptor out of the way, then to its number. `as` is sorted. */
static void place_fds(struct plan *p)
{
    int base = p->as[p->n - 1] + 1;
    unsigned next = 0;

    p->error_fd = fcntl(p->error_fd, F_DUPFD_CLOEXEC, base);
    if (p->error_fd < 0)
        _exit(127);
    for (size_t i = 0; i < p->n; i++) {
        p->from[i] = fcntl(p->from[i], F_DUPFD_CLOEXEC, base);
        if (p->from[i] < 0)
            fail(p, 'f');
    }
    for (size_t i = 0; i < p->n; i++)
        if (dup2(p->from[i], p->as[i]) < 0)
            fail(p, 'f');
    for (size_t i = 0; i < p->n; i++) {
        if ((unsigned)p->as[i] > next)
            cloexec_range(next, (unsigned)p->as[i] - 1);
        next = (unsigned)p->as[i] + 1;
    }
    cloexec_range(next, ~0U);
}

static _Noreturn void child_main(struct plan *p)
{
    setsid();
    default_signals();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    place_fds(p);
    if (getppid() != p->parent) { /* it died before prctl */
        errno = ESRCH;
        fail(p, 'p');
    }
    if (p->spec->cwd && chdir(p->spec->cwd) < 0)
        fail(p, 'c');
    /* The prototypes of exec predate const; nothing is written to. */
    union {
        const char *const *in;
        char *const *out;
    } argv = {p->spec->argv}, env = {p->spec->env ? p->spec->env : (const char *const *)environ};

    execve(p->program, argv.out, env.out);
    fail(p, 'x');
}

/* --- in the parent --- */

static const char *search_path(const struct rs_spawn *spec)
{
    static const char fallback[] = "/usr/local/bin:/usr/bin:/bin";

    if (!spec->env)
        return getenv("PATH") ? getenv("PATH") : fallback;
    for (const char *const *e = spec->env; *e; e++)
        if (strncmp(*e, "PATH=", 5) == 0)
            return *e + 5;
    return fallback;
}

/* The file that argv[0] means, as a shell would look for it. */
static char *find_program(const struct rs_spawn *spec, struct rs_error *err)
{
    const char *name = spec->program ? spec->program : spec->argv[0];
    bool seen = false; /* there is one, but it may not be executed */

    if (strchr(name, '/'))
        return rs_strdup(name);
    for (const char *dir = search_path(spec); *dir;) {
        size_t n = strcspn(dir, ":");
        rs_auto(rs_freep) char *path = rs_asprintf("%.*s/%s", (int)n, dir, name);
        struct stat st;

        if (n > 0 && stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            if (access(path, X_OK) == 0)
                return rs_steal(path);
            seen = true;
        }
        dir += n + (dir[n] == ':');
    }
    if (seen)
        rs_error_errno(err, EACCES, "cannot execute '%s'", name);
    else
        rs_error_set(err, RS_NOT_FOUND, "cannot execute '%s': not found in PATH (%s)", name,
                     search_path(spec));
    return NULL;
}

static void plan_fd(struct plan *p, int fd, int as)
{
    size_t at = p->n;

    assert(p->n < CHILD_FDS && as >= 0);
    while (at > 0 && p->as[at - 1] > as) {
        p->as[at] = p->as[at - 1];
        p->from[at] = p->from[at - 1];
        at--;
    }
    assert(at == 0 || p->as[at - 1] != as);
    p->as[at] = as;
    p->from[at] = fd;
    p->n++;
}

static void plan_fds(struct plan *p, int null_fd)
{
    bool named[3] = {false};

    for (size_t i = 0; i < p->spec->n_fds; i++) {
        plan_fd(p, p->spec->fds[i].fd, p->spec->fds[i].as);
        if (p->spec->fds[i].as < 3)
            named[p->spec->fds[i].as] = true;
    }
    for (int i = 0; i < 3; i++)
        if (!named[i])
            plan_fd(p, null_fd, i);
}

/* Nothing on the pipe: exec closed it, the child is what it should be. */
static int read_failure(const struct plan *p, int fd, struct rs_error *err)
{
    struct failure f;
    ssize_t n;

    do
        n = read(fd, &f, sizeof(f));
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0;
    if (n != (ssize_t)sizeof(f))
        return rs_error_set(err, RS_SYSTEM, "cannot execute '%s': the child broke off",
                            p->spec->argv[0]);
    if (f.stage == 'c')
        return rs_error_errno(err, f.sys_errno, "cannot enter the folder '%s' to execute '%s'",
                              p->spec->cwd, p->spec->argv[0]);
    if (f.stage == 'x' && f.sys_errno == ENOENT && access(p->program, F_OK) == 0)
        return rs_error_set(err, RS_SYSTEM,
                            "cannot execute '%s': the interpreter in its first line is missing",
                            p->program);
    return rs_error_errno(err, f.sys_errno, "cannot execute '%s'", p->spec->argv[0]);
}

static int on_pidfd(struct rs_io *io, uint32_t events);

static int watch(struct rs_child *child, struct rs_loop *loop, pid_t pid, struct rs_error *err)
{
    rs_auto(rs_closep) int fd = open_pidfd(pid);

    if (fd < 0)
        return rs_error_errno(err, errno, "cannot watch process %d", (int)pid);
    child->io = (struct rs_io){.fd = fd, .fn = on_pidfd};
    if (rs_io_start(&child->io, loop, EPOLLIN, err) < 0)
        return -1;
    child->pid = pid;
    rs_list_init(&child->in);
    rs_list_push_back(&children, &child->in);
    rs_steal_fd(&fd);
    return 0;
}

static void kill_and_reap(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int rs_spawn(struct rs_child *child, struct rs_loop *loop, const struct rs_spawn *spec,
             struct rs_error *err)
{
    rs_auto(rs_freep) char *program = find_program(spec, err);
    rs_auto(rs_closep) int null_fd = -1;
    rs_auto(rs_closep) int rd = -1;
    rs_auto(rs_closep) int wr = -1;
    struct plan plan = {.spec = spec, .program = program, .parent = getpid()};
    int pipefd[2];
    pid_t pid;

    assert(child->pid == 0);
    if (!program)
        return -1;
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return rs_error_errno(err, errno, "/dev/null");
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return rs_error_errno(err, errno, "pipe");
    rd = pipefd[0];
    wr = pipefd[1];
    plan.error_fd = wr;
    plan_fds(&plan, null_fd);

    pid = fork();
    if (pid < 0)
        return rs_error_errno(err, errno, "cannot start '%s': fork", spec->argv[0]);
    if (pid == 0)
        child_main(&plan);
    close(rs_steal_fd(&wr));
    if (read_failure(&plan, rd, err) < 0) {
        kill_and_reap(pid);
        return -1;
    }
    child->foreign = false;
    if (watch(child, loop, pid, err) < 0) {
        kill(-pid, SIGKILL);
        kill_and_reap(pid);
        return -1;
    }
    return 0;
}

int rs_child_adopt(struct rs_child *child, struct rs_loop *loop, pid_t pid, struct rs_error *err)
{
    assert(child->pid == 0);
    if (pid <= 1)
        return rs_error_set(err, RS_INVALID, "cannot watch process %d: not a replica's", (int)pid);
    child->foreign = true;
    return watch(child, loop, pid, err);
}

/* While its leader is not reaped, a group's number cannot be given to another one. */
static bool leads_group(const struct rs_child *child)
{
    return !child->foreign || getpgid(child->pid) == child->pid;
}

static int on_pidfd(struct rs_io *io, uint32_t events)
{
    struct rs_child *child = rs_container_of(io, struct rs_child, io);
    siginfo_t info = {0};
    int status;

    if (leads_group(child))
        kill(-child->pid, SIGKILL); /* what it started dies with it */
    if (waitid(P_PIDFD, (id_t)io->fd, &info, WEXITED | WNOHANG) < 0) {
        if (errno == EINTR)
            return 0;
        status = SIGKILL; /* reaped by someone else: it is gone, how is not known */
    } else if (info.si_pid == 0) {
        return 0; /* not yet */
    } else {
        status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
    }
    rs_child_release(child);
    child->on_exit(child, status);
    return 0;
}

void rs_child_kill(struct rs_child *child, int signal)
{
    if (child->pid <= 0)
        return;
    if (!leads_group(child) || kill(-child->pid, signal) < 0)
        syscall(SYS_pidfd_send_signal, child->io.fd, signal, NULL, 0);
}

void rs_child_release(struct rs_child *child)
{
    if (child->pid <= 0)
        return;
    rs_list_remove(&child->in);
    rs_io_stop(&child->io);
    close(child->io.fd);
    child->io.fd = -1;
    child->pid = 0;
}

int rs_subreaper(struct rs_error *err)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return rs_error_errno(err, errno, "prctl(PR_SET_CHILD_SUBREAPER)");
    return 0;
}

static bool is_watched(pid_t pid)
{
    rs_list_for_each (it, &children) {
        if (rs_container_of(it, struct rs_child, in)->pid == pid)
            return true;
    }
    return false;
}

unsigned rs_reap(void)
{
    unsigned reaped = 0;

    for (;;) {
        siginfo_t info = {0};

        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return reaped;
        if (is_watched(info.si_pid))
            return reaped; /* its pidfd is ready too: on_exit first, the others next time */
        if (waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG) == 0)
            reaped++;
    }
}

void rs_exit_text(int status, char *buf, size_t size)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));

        snprintf(buf, size, "was killed by SIG%s (%d)", name ? name : "?", WTERMSIG(status));
    } else {
        snprintf(buf, size, "exited with status %d", WEXITSTATUS(status));
    }
}
