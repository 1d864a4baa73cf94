#include "sched/supervise/keeper.h"

#include "core/base/alloc.h"
#include "core/base/log.h"
#include "core/base/map.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_WAIT_MS 2000

struct proc {
    struct rs_keeper *keeper;
    char *id;
    struct rs_child child; /* pid 0: expected, not adopted yet */
    struct rs_capture *capture;
};

struct rs_keeper {
    struct rs_loop *loop;
    struct rs_capture_hub *hub;
    struct rs_keeper_ops ops;
    void *arg;
    struct rs_map procs; /* id -> struct proc */
};

int rs_keeper_new(struct rs_keeper **ret, struct rs_loop *loop, struct rs_capture_hub *hub,
                  const struct rs_keeper_ops *ops, void *arg, struct rs_error *err)
{
    struct rs_keeper *k;

    if (!hub)
        return rs_error_set(err, RS_INVALID, "a keeper needs a capture hub");
    k = rs_alloc(sizeof(*k));
    k->loop = loop;
    k->hub = hub;
    k->ops = *ops;
    k->arg = arg;
    *ret = k;
    return 0;
}

static void proc_free(struct proc *p)
{
    rs_child_release(&p->child);
    rs_capture_free(p->capture);
    free(p->id);
    free(p);
}

/* Waits for a process that was sent SIGKILL; one that the kernel does not let go is given up. */
static void await_end(struct proc *p)
{
    struct pollfd ended = {.fd = p->child.io.fd, .events = POLLIN};

    if (poll(&ended, 1, LAST_WAIT_MS) == 1)
        waitid(P_PIDFD, (id_t)p->child.io.fd, &(siginfo_t){0}, WEXITED | WNOHANG);
}

void rs_keeper_free(struct rs_keeper *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < rs_map_slots(&k->procs); i++) {
        struct proc *p = rs_map_at(&k->procs, i, NULL);

        if (p)
            rs_child_kill(&p->child, SIGKILL);
    }
    for (size_t i = 0; i < rs_map_slots(&k->procs); i++) {
        struct proc *p = rs_map_at(&k->procs, i, NULL);

        if (!p)
            continue;
        if (p->child.pid > 0)
            await_end(p);
        proc_free(p);
    }
    rs_map_fini(&k->procs);
    free(k);
}

static void on_exit_of(struct rs_child *child, int status)
{
    struct proc *p = rs_container_of(child, struct proc, child);
    struct rs_keeper *k = p->keeper;

    rs_capture_drain(p->capture);
    rs_capture_ended(p->capture, status);
    rs_map_remove(&k->procs, p->id);
    k->ops.on_exit(p->id, status, rs_capture_tail(p->capture), k->arg);
    proc_free(p);
}

int rs_keeper_expect(struct rs_keeper *k, const char *id, const char *label, int *out_fd,
                     int *err_fd, struct rs_error *err)
{
    struct rs_capture *capture = NULL;
    struct proc *p;

    if (rs_map_get(&k->procs, id))
        return rs_error_set(err, RS_CONFLICT, "there is a process '%s' already", id);
    if (rs_capture_new(&capture, k->hub, label, out_fd, err_fd, err) < 0)
        return -1;
    p = rs_alloc(sizeof(*p));
    p->keeper = k;
    p->id = rs_strdup(id);
    p->capture = capture;
    p->child.io.fd = -1;
    p->child.on_exit = on_exit_of;
    rs_map_put(&k->procs, id, p);
    return 0;
}

bool rs_keeper_forget(struct rs_keeper *k, const char *id)
{
    struct proc *p = rs_map_get(&k->procs, id);

    if (!p || p->child.pid > 0)
        return false;
    rs_map_remove(&k->procs, id);
    proc_free(p);
    return true;
}

int rs_keeper_adopt(struct rs_keeper *k, const char *id, pid_t pid, struct rs_error *err)
{
    struct proc *p = rs_map_get(&k->procs, id);

    if (!p || p->child.pid > 0)
        return rs_error_set(err, RS_NOT_FOUND, "no process is expected as '%s'", id);
    if (rs_child_adopt(&p->child, k->loop, pid, err) < 0) {
        rs_keeper_forget(k, id);
        return -1;
    }
    return 0;
}

int rs_keeper_spawn(struct rs_keeper *k, const char *id, const char *label,
                    const struct rs_spawn *spec, pid_t *pid, struct rs_error *err)
{
    rs_auto(rs_closep) int out = -1;
    rs_auto(rs_closep) int error = -1;
    struct rs_spawn_fd *fds = rs_alloc((spec->n_fds + 2) * sizeof(*fds));
    struct rs_spawn with = *spec;
    struct proc *p;
    int r;

    if (rs_keeper_expect(k, id, label, &out, &error, err) < 0) {
        free(fds);
        return -1;
    }
    for (size_t i = 0; i < spec->n_fds; i++)
        fds[i] = spec->fds[i];
    fds[spec->n_fds] = (struct rs_spawn_fd){.fd = out, .as = STDOUT_FILENO};
    fds[spec->n_fds + 1] = (struct rs_spawn_fd){.fd = error, .as = STDERR_FILENO};
    with.fds = fds;
    with.n_fds += 2;
    p = rs_map_get(&k->procs, id);
    r = rs_spawn(&p->child, k->loop, &with, err);
    free(fds);
    if (r < 0) {
        rs_keeper_forget(k, id);
        return -1;
    }
    *pid = p->child.pid;
    return 0;
}

void rs_keeper_kill(struct rs_keeper *k, const char *id, int signal)
{
    struct proc *p = rs_map_get(&k->procs, id);

    if (p)
        rs_child_kill(&p->child, signal);
}

size_t rs_keeper_count(const struct rs_keeper *k)
{
    size_t n = 0;

    for (size_t i = 0; i < rs_map_slots(&k->procs); i++) {
        const struct proc *p = rs_map_at(&k->procs, i, NULL);

        n += p && p->child.pid > 0;
    }
    return n;
}

/* A process that was forked for us but whose pid we were not told yet must not be reaped by number:
 * while one is expected, nothing is. */
void rs_keeper_reap(struct rs_keeper *k)
{
    for (size_t i = 0; i < rs_map_slots(&k->procs); i++) {
        const struct proc *p = rs_map_at(&k->procs, i, NULL);

        if (p && p->child.pid == 0)
            return;
    }
    rs_reap();
}
