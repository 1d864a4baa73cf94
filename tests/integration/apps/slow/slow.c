/* A replica whose every request takes as long as its argument says, in ms, and no CPU: `slow 80`. With
 * a second argument it ends if it is ever given two at a time. */
#define RSERVE_REPLICA_IMPLEMENTATION
#include "rserve_replica.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

static struct timespec span;
static atomic_int at_work;
static bool alone;

static int work(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    struct timespec left = span;
    int r;

    if (atomic_fetch_add(&at_work, 1) > 0 && alone)
        abort();
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
    r = rserve_respond(res, 200, "text/plain", "done\n", 5);
    atomic_fetch_sub(&at_work, 1);
    return r;
}

int main(int argc, char *argv[])
{
    struct rserve_options options = {.threads = 4};
    long ms = argc > 1 ? strtol(argv[1], NULL, 10) : 10;

    alone = argc > 2;
    span = (struct timespec){ms / 1000, ms % 1000 * 1000000};
    return rserve_serve_with(&options, work, NULL);
}
