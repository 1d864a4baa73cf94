#include "cmd/background.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "sched/supervise/spawn.h"
#include "sched/supervise/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GIVE_UP_MS = 3000 };

/* --- the child ----------------------------------------------------------------------------------- */

/* Descriptors of whoever called: a lock or a pipe would be held for as long as the node lives. */
static void drop_foreign(int keep)
{
    (void)syscall(SYS_close_range, 3, keep - 1, 0);
    (void)syscall(SYS_close_range, keep + 1, ~0U, 0);
}

static int leave(const struct rs_background *b, pid_t parent, struct rs_error *err)
{
    rs_auto(rs_closep) int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    rs_auto(rs_closep) int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (log < 0)
        return rs_error_errno(err, errno, "cannot write '%s'", b->log);
    /* Until it is ready it lives for the one who waits. */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent)
        return rs_error_set(err, RS_SYSTEM, "the command was ended");
    if (setsid() < 0 || nothing < 0 || dup2(nothing, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        return rs_error_errno(err, errno, "cannot go to the background");
    rs_closep(&log);
    rs_closep(&nothing);
    drop_foreign(b->fd);
    return 0;
}

static int say(struct rs_background *b, const json_t *what)
{
    rs_auto(rs_freep) char *text = rs_json_dump(what);
    size_t n = strlen(text);
    bool heard;

    if (b->fd < 0)
        return 0;
    signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_PDEATHSIG, 0);
    text[n] = '\n'; /* in place of the NUL: one write */
    heard = write(b->fd, text, n + 1) == (ssize_t)n + 1;
    rs_closep(&b->fd);
    return heard ? 0 : -1;
}

int rs_background_ready(struct rs_background *b, const json_t *what)
{
    return say(b, what);
}

void rs_background_failed(struct rs_background *b, const struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *what =
        json_pack("{s:s, s:i, s:s}", "error", err->msg, "code", (int)err->code, "log", b->log);

    (void)say(b, what);
}

/* --- the parent ---------------------------------------------------------------------------------- */

/* One line of the child. 1: it ended without. 2: not in time. */
static int hear(int fd, int64_t timeout, struct rs_buf *line)
{
    int64_t deadline = rs_clock_now() + timeout;

    for (;;) {
        int64_t left = (deadline - rs_clock_now()) / RS_MS;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n;

        if (left <= 0)
            return 2;
        if (poll(&p, 1, (int)left) <= 0)
            continue;
        n = read(fd, rs_buf_reserve(line, 4096), 4096);
        if (n <= 0)
            return 1;
        rs_buf_commit(line, (size_t)n);
        if (memchr(rs_buf_text(line), '\n', rs_buf_len(line)))
            return 0;
    }
}

static int ended(struct rs_background *b, struct rs_error *err)
{
    char text[64];
    int status = 0;

    while (waitpid(b->pid, &status, 0) < 0 && errno == EINTR)
        ;
    rs_exit_text(status, text, sizeof(text));
    return rs_error_set(err, RS_SYSTEM, "it %s while it started; its log is %s", text, b->log);
}

static int give_up(struct rs_background *b, int64_t timeout, struct rs_error *err)
{
    int64_t deadline = rs_clock_now() + GIVE_UP_MS * RS_MS;

    kill(b->pid, SIGTERM);
    while (waitpid(b->pid, NULL, WNOHANG) == 0) {
        if (rs_clock_now() > deadline) {
            kill(b->pid, SIGKILL);
            deadline = INT64_MAX;
        }
        poll(NULL, 0, 20);
    }
    return rs_error_set(err, RS_TIMEOUT, "it was not ready within %lld seconds; its log is %s",
                        (long long)(timeout / RS_SEC), b->log);
}

static int understand(const struct rs_buf *line, json_t **said, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *value = NULL;
    const char *error;

    if (rs_json_parse(&value, rs_buf_text(line), rs_buf_len(line), "the process", err) < 0)
        return -1;
    error = rs_json_str(value, "error", NULL);
    if (error)
        return rs_error_set(err, (enum rs_errc)rs_json_int(value, "code", RS_SYSTEM), "%s", error);
    *said = rs_steal(value);
    return 0;
}

int rs_background_start(struct rs_background *b, const char *name, int64_t timeout, json_t **said,
                        struct rs_error *err)
{
    rs_auto(rs_buf_fini) struct rs_buf line = {0};
    rs_auto(rs_freep) char *dir = NULL;
    pid_t parent = getpid();
    int fds[2], r;

    *b = (struct rs_background){.fd = -1};
    if (rs_statedir_folder("logs", &dir, err) < 0)
        return -1;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return rs_error_errno(err, errno, "pipe");
    fflush(NULL);
    b->pid = fork();
    if (b->pid < 0) {
        rs_error_errno(err, errno, "fork");
        close(fds[0]);
        close(fds[1]);
        return -1;
    }
    snprintf(b->log, sizeof(b->log), "%s/%s-%d.log", dir, name, (int)(b->pid ? b->pid : getpid()));
    if (b->pid == 0) {
        close(fds[0]);
        b->fd = fds[1];
        if (leave(b, parent, err) == 0)
            return 1;
        rs_background_failed(b, err);
        _exit(1);
    }
    close(fds[1]);
    r = hear(fds[0], timeout, &line);
    close(fds[0]);
    if (r == 1)
        return ended(b, err);
    if (r == 2)
        return give_up(b, timeout, err);
    return understand(&line, said, err);
}
