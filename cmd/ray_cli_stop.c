/* ray stop: ends the nodes of this user on this machine, heads last, and waits for their end. */
#include "cmd/ray_cli.h"
#include "cmd/running.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KILLED_WAIT_S = 5 };

struct stop_options {
    bool force;
    int64_t grace;
};

static const struct rs_option stop_options[] = {
    {"force", 'f', RS_OPT_FLAG, offsetof(struct stop_options, force), NULL,
     "kill them at once: requests under way are lost"},
    {"grace-period", 'g', RS_OPT_INT, offsetof(struct stop_options, grace), "SECONDS",
     "time for requests under way, then they are killed (default 16)", .min = 0, .max = 86400},
    {"log-style", 0, RS_OPT_IGNORED},
    {"log-color", 0, RS_OPT_IGNORED},
    {"verbose", 'v', RS_OPT_IGNORED_FLAG},
    {NULL},
};

static int run_stop(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_ray_verb_stop = {
    .of = "ray",
    .name = "stop",
    .args = "",
    .summary = "end the nodes of this machine",
    .details = "Those that this user started with 'ray start', 'rserve head' or 'rserve worker', "
               "wherever they keep their files. Nothing that runs is no failure.",
    .options = stop_options,
    .run = run_stop,
};

struct node {
    pid_t pid;
    int fd; /* pidfd: -1 once it has ended */
};

/* The process that holds the lock of its file now: not one that has the pid of one that ended. */
static bool still_holds(const struct rs_running *one)
{
    struct rs_running_all now;
    bool holds = false;

    rs_running_read(&now);
    for (size_t i = 0; i < now.count; i++)
        holds = holds ||
                (now.items[i].pid == one->pid && strcmp(now.items[i].node_id, one->node_id) == 0);
    rs_running_fini(&now);
    return holds;
}

static size_t find(struct node **ret)
{
    struct rs_running_all all;
    size_t n = 0;

    rs_running_read(&all);
    *ret = rs_alloc((all.count + 1) * sizeof(**ret));
    for (size_t i = 0; i < all.count; i++) {
        const struct rs_running *one = &all.items[i];
        int fd;

        if (strcmp(one->kind, "head") != 0 && strcmp(one->kind, "worker") != 0)
            continue;
        fd = (int)syscall(SYS_pidfd_open, one->pid, 0);
        if (fd >= 0 && still_holds(one))
            (*ret)[n++] = (struct node){one->pid, fd};
        else if (fd >= 0)
            close(fd);
    }
    rs_running_fini(&all);
    return n;
}

static void send_all(struct node *nodes, size_t n, int signal)
{
    for (size_t i = 0; i < n; i++)
        if (nodes[i].fd >= 0)
            (void)syscall(SYS_pidfd_send_signal, nodes[i].fd, signal, NULL, 0);
}

/* How many still run after that time. */
static size_t wait_all(struct node *nodes, size_t n, int64_t seconds)
{
    int64_t deadline = rs_clock_now() + seconds * RS_SEC;
    size_t left = 0;

    for (size_t i = 0; i < n; i++) {
        struct pollfd p = {.fd = nodes[i].fd, .events = POLLIN};
        int64_t ms;

        while (nodes[i].fd >= 0) {
            ms = (deadline - rs_clock_now() + RS_MS - 1) / RS_MS;
            if (poll(&p, 1, ms > 0 ? (int)ms : 0) > 0)
                rs_closep(&nodes[i].fd);
            else if (ms <= 0)
                break;
        }
        left += nodes[i].fd >= 0;
    }
    return left;
}

static int run_stop(int argc, char *argv[], struct rs_error *err)
{
    struct stop_options o = {.grace = 16};
    struct node *nodes;
    size_t n, left;

    if (rs_verb_parse(&rs_ray_verb_stop, argc, argv, &o, err) < 0)
        return -1;
    n = find(&nodes);
    send_all(nodes, n, o.force ? SIGKILL : SIGTERM);
    left = wait_all(nodes, n, o.force ? KILLED_WAIT_S : o.grace);
    if (left && !o.force) {
        fprintf(
            stderr,
            "Stopped only %zu out of %zu Ray processes within the grace period of %lld seconds; "
            "killing the rest.\n",
            n - left, n, (long long)o.grace);
        send_all(nodes, n, SIGKILL);
        left = wait_all(nodes, n, KILLED_WAIT_S);
    }
    for (size_t i = 0; i < n; i++)
        rs_closep(&nodes[i].fd);
    free(nodes);
    if (left)
        return rs_error_set(err, RS_SYSTEM, "%zu of %zu processes do not end", left, n);
    if (n)
        printf("Stopped all %zu Ray processes.\n", n);
    else
        puts("Did not find any active Ray processes.");
    return 0;
}
