#include "tests/sim/shrink.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RUNS_MAX = 400, HANGS_AFTER_S = 120 };

static void child(const struct sim_script *script, enum sim_mutation mutation, int fd)
{
    struct sim_outcome o = {0};
    struct sim s;

    alarm(HANGS_AFTER_S);
    sim_open(&s, mutation, false);
    sim_run(&s, script);
    memcpy(o.invariant, s.invariant, sizeof(o.invariant));
    memcpy(o.text, s.violation, sizeof(o.text));
    o.at = s.violated_at;
    o.events = s.events_run;
    o.requests = s.n_requests;
    sim_close(&s);
    if (write(fd, &o, sizeof(o)) != (ssize_t)sizeof(o))
        _exit(3);
}

struct sim_outcome sim_try(const struct sim_script *script, enum sim_mutation mutation)
{
    struct sim_outcome o = {0};
    int fds[2], status = 0;
    ssize_t n;
    pid_t pid;

    fflush(NULL);
    if (pipe(fds) < 0 || (pid = fork()) < 0) {
        perror("sim");
        exit(2);
    }
    if (pid == 0) {
        close(fds[0]);
        child(script, mutation, fds[1]);
        exit(0); /* not _exit: what sanitizers say at the end counts too */
    }
    close(fds[1]);
    n = read(fds[0], &o, sizeof(o));
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (n == (ssize_t)sizeof(o) && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return o;
    o = (struct sim_outcome){.invariant = "crash"};
    snprintf(o.text, sizeof(o.text), "%s %d",
             WIFSIGNALED(status) ? "killed by signal" : "ended with status",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return o;
}

struct shrinking {
    const char *invariant;
    enum sim_mutation mutation;
    unsigned runs;
    struct sim_script best;
    struct sim_outcome last;
};

/* Without the steps from `from` to `to`. True: it is still violated, and that is the best now. */
static bool leave_out(struct shrinking *x, size_t from, size_t to)
{
    struct sim_script less = {.seed = x->best.seed};
    struct sim_outcome o;

    if (x->runs >= RUNS_MAX)
        return false;
    for (size_t i = 0; i < x->best.n; i++)
        if (i < from || i >= to)
            sim_script_add(&less, &x->best.inputs[i]);
    x->runs++;
    o = sim_try(&less, x->mutation);
    if (strcmp(o.invariant, x->invariant) != 0) {
        sim_script_fini(&less);
        return false;
    }
    sim_script_fini(&x->best);
    x->best = less;
    x->last = o;
    return true;
}

unsigned sim_shrink(const struct sim_script *script, const struct sim_outcome *o,
                    enum sim_mutation mutation, struct sim_script *ret, struct sim_outcome *last)
{
    struct shrinking x = {.invariant = o->invariant, .mutation = mutation, .last = *o};
    bool less;

    x.best.seed = script->seed;
    for (size_t i = 0; i < script->n; i++)
        sim_script_add(&x.best, &script->inputs[i]);
    for (size_t size = (x.best.n + 1) / 2; size > 0; size = size > 1 ? (size + 1) / 2 : 0) {
        do {
            less = false;
            for (size_t from = 0; from < x.best.n;) {
                if (leave_out(&x, from, from + size))
                    less = true;
                else
                    from += size;
            }
        } while (less && size == 1);
    }
    *ret = x.best;
    *last = x.last;
    return x.runs;
}
