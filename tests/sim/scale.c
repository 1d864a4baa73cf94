/* How the control plane grows: sim-scale [NODES REPLICAS]. Brings up so many replicas on so many nodes,
 * then changes one thing. Without arguments it does so for a tenth of the size as well and looks at the
 * ratio: work that grows with the square of the size is found, whatever the machine. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct figures {
    unsigned nodes, replicas;
    double all_s;    /* of CPU: from nothing to all of them up */
    double change_s; /* the controller, after one deployment was told to have one more */
    double report_s; /* the controller, for one report */
    uint64_t events;
    long rss_kb;
};

enum { RATIO_MAX = 60 }; /* for ten times the size */

static double cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 +
           (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6;
}

static bool converge(struct sim *s)
{
    for (int i = 0; i < 600 && !s->invariant[0]; i++) {
        rs_auto(rs_buf_fini) struct rs_buf why = {0};

        sim_run_until(s, s->now + 200 * RS_MS);
        if (i > 10 && sim_check_reached(s, &why))
            return true;
    }
    fprintf(stderr, "sim-scale: it does not come up %s\n", s->violation);
    return false;
}

static void deploy(struct sim *s, unsigned replicas)
{
    for (int a = 0; a < SIM_APPS; a++) {
        struct sim_input in = {.kind = IN_DEPLOY};

        in.args[DEPLOY_APP] = a;
        in.args[DEPLOY_VERSION] = 1;
        in.args[DEPLOY_REPLICAS] = replicas / SIM_APPS;
        in.args[DEPLOY_CPU] = 100;
        in.args[DEPLOY_ONGOING] = 4;
        in.args[DEPLOY_START] = 100;
        sim_deploy(s, &in);
    }
}

static bool measure(struct figures *f)
{
    struct sim s;
    struct rusage u;
    double began = cpu_s();
    bool up;

    sim_open(&s, SIM_MUTATION_NONE, false);
    sim_head_start(&s);
    for (unsigned n = 0; n < f->nodes; n++)
        sim_node_start(&s, n, f->replicas / f->nodes + 2);
    sim_run_until(&s, s.now + RS_SEC);
    deploy(&s, f->replicas);
    up = converge(&s);
    f->all_s = cpu_s() - began;
    f->events = s.events_run;
    began = cpu_s();
    sim_scale(&s, 0, f->replicas / SIM_APPS + 1);
    f->change_s = cpu_s() - began;
    up = up && converge(&s);
    sim_node_report(&s.nodes[0]);
    began = cpu_s();
    sim_run_until(&s, s.now + 2 * RS_MS);
    f->report_s = cpu_s() - began;
    getrusage(RUSAGE_SELF, &u);
    f->rss_kb = u.ru_maxrss;
    sim_close(&s);
    printf("%5u replicas on %4u nodes: up in %6.2f s of CPU, one more replica %7.2f ms, a report "
           "%6.3f ms, %" PRIu64 " events, %ld MB\n",
           f->replicas, f->nodes, f->all_s, f->change_s * 1e3, f->report_s * 1e3, f->events,
           f->rss_kb / 1024);
    fflush(stdout);
    return up;
}

int main(int argc, char *argv[])
{
    struct figures small = {.nodes = 100, .replicas = 1000};
    struct figures big = {.nodes = 1000, .replicas = 10000};

    if (argc == 3) {
        big.nodes = (unsigned)strtoul(argv[1], NULL, 10);
        big.replicas = (unsigned)strtoul(argv[2], NULL, 10);
        return measure(&big) ? 0 : 1;
    }
    if (!measure(&small) || !measure(&big))
        return 1;
    printf("ratio of all %.1f, of one change %.1f\n", big.all_s / small.all_s,
           big.change_s / small.change_s);
    if (big.all_s / small.all_s > RATIO_MAX) {
        fprintf(stderr, "sim-scale: ten times the size took %.0f times the work, %d is the limit\n",
                big.all_s / small.all_s, RATIO_MAX);
        return 1;
    }
    return 0;
}
