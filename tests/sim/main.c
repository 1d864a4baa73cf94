/* sim: runs the simulated cluster for many seeds, and shows what goes wrong in as few steps as it can.
 *
 *     sim [--seeds N] [--from SEED] [--jobs N]   N seeds; exit status 1 if an invariant was violated
 *     sim --seed SEED | --replay FILE            one, and tell all that happens
 *     sim --mutants                              every bug that is put in must be found
 *     sim --mutate NAME                          with one of them
 */
#include "tests/sim/shrink.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct options {
    uint64_t seeds, from, jobs;
    const char *replay;
    enum sim_mutation mutation;
    bool mutants, one, script_only;
};

#define RS_X(name, text, finds, among) text,
static const char *const mutation_names[] = {SIM_MUTATIONS(RS_X)};
#undef RS_X
#define RS_X(name, text, finds, among) finds,
static const char *const mutation_finds[] = {SIM_MUTATIONS(RS_X)};
#undef RS_X
#define RS_X(name, text, finds, among) among,
static const uint64_t mutation_among[] = {SIM_MUTATIONS(RS_X)};
#undef RS_X

enum { MUTANT_SEEDS = 200 }; /* at most, until it is found */
enum { JOBS_MAX = 16, FAILURES_MAX = 3 };

static void show(const struct sim_script *script, const struct sim_outcome *o,
                 enum sim_mutation mutation)
{
    struct sim_script least = {0};
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    struct sim_outcome last;
    unsigned runs = sim_shrink(script, o, mutation, &least, &last);

    sim_script_print(&least, &text);
    printf("seed %" PRIu64 ", %.3f s: %s: %s\n", script->seed, (double)o->at / 1e9, o->invariant,
           o->text);
    printf("the shortest trace that was found in %u runs (%zu of %zu steps), which ends at %.3f s "
           "with: %s\nkeep it in a file and see what happens with: sim --replay FILE%s%s\n\n%s\n",
           runs, least.n, script->n, (double)last.at / 1e9, last.text, mutation ? " --mutate " : "",
           mutation_names[mutation], rs_buf_text(&text));
    fflush(stdout);
    sim_script_fini(&least);
}

/* True: all went well. */
static bool run_seed(uint64_t seed, enum sim_mutation mutation, struct sim_outcome *o)
{
    struct sim_script script = {0};

    sim_script_make(&script, seed);
    *o = sim_try(&script, mutation);
    if (o->invariant[0] && !mutation)
        show(&script, o, mutation);
    sim_script_fini(&script);
    return !o->invariant[0];
}

struct sums {
    uint64_t seeds, failed, events, requests;
};

/* Every so manyth seed, from the first one of this job. */
static struct sums run_some(const struct options *opt, uint64_t job)
{
    struct sums sums = {0};

    for (uint64_t i = job; i < opt->seeds && sums.failed < FAILURES_MAX; i += opt->jobs) {
        struct sim_outcome o;

        sums.failed += !run_seed(opt->from + i, opt->mutation, &o);
        sums.seeds++;
        sums.events += o.events;
        sums.requests += o.requests;
    }
    return sums;
}

static int start_job(const struct options *opt, uint64_t job)
{
    int fds[2];
    pid_t pid;

    fflush(NULL);
    if (pipe(fds) < 0 || (pid = fork()) < 0) {
        perror("sim");
        exit(2);
    }
    if (pid == 0) {
        struct sums sums = run_some(opt, job);

        if (write(fds[1], &sums, sizeof(sums)) != (ssize_t)sizeof(sums))
            exit(2);
        exit(0);
    }
    close(fds[1]);
    return fds[0];
}

static int run_seeds(const struct options *opt)
{
    int jobs[JOBS_MAX];
    struct sums all = {0};

    for (uint64_t i = 0; i < opt->jobs; i++)
        jobs[i] = start_job(opt, i);
    for (uint64_t i = 0; i < opt->jobs; i++) {
        struct sums sums = {.failed = 1};

        if (read(jobs[i], &sums, sizeof(sums)) != (ssize_t)sizeof(sums))
            fprintf(stderr, "sim: a job ended without a word\n");
        close(jobs[i]);
        all.seeds += sums.seeds;
        all.failed += sums.failed;
        all.events += sums.events;
        all.requests += sums.requests;
    }
    while (wait(NULL) > 0)
        ;
    printf("%" PRIu64 " seeds, %" PRIu64 " events, %" PRIu64 " requests: %" PRIu64 " failed\n",
           all.seeds, all.events, all.requests, all.failed);
    return all.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static bool find_mutant(enum sim_mutation m)
{
    struct sim_outcome o = {0};

    for (uint64_t seed = mutation_among[m]; seed < MUTANT_SEEDS; seed += 4)
        if (!run_seed(seed, m, &o) && strcmp(o.invariant, mutation_finds[m]) == 0) {
            printf("%-14s found by '%s' with seed %" PRIu64 ": %s\n", mutation_names[m],
                   o.invariant, seed, o.text);
            return true;
        }
    printf("%-14s NOT found by '%s' in the first %d seeds\n", mutation_names[m], mutation_finds[m],
           MUTANT_SEEDS);
    return false;
}

static int run_mutants(void)
{
    bool all = true;

    for (int m = 1; m < SIM_MUTATION_COUNT; m++)
        all &= find_mutant((enum sim_mutation)m);
    return all ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run_one(const struct options *opt)
{
    struct sim_script script = {0};
    struct sim s;
    struct rs_error err = {0};
    int status;

    if (!opt->replay) {
        sim_script_make(&script, opt->from);
    } else if (sim_script_read(&script, opt->replay, &err) < 0) {
        fprintf(stderr, "sim: %s\n", err.msg);
        return 2;
    }
    if (opt->script_only) {
        rs_auto(rs_buf_fini) struct rs_buf text = {0};

        sim_script_print(&script, &text);
        fputs(rs_buf_text(&text), stdout);
        sim_script_fini(&script);
        return 0;
    }
    sim_open(&s, opt->mutation, true);
    sim_run(&s, &script);
    status = s.invariant[0] ? EXIT_FAILURE : EXIT_SUCCESS;
    printf("%" PRIu64 " events, %zu requests: %s%s%s\n", s.events_run, s.n_requests,
           s.invariant[0] ? s.invariant : "all is well", s.invariant[0] ? ": " : "", s.violation);
    sim_close(&s);
    sim_script_fini(&script);
    return status;
}

static enum sim_mutation mutation_of(const char *name)
{
    for (int m = 1; m < SIM_MUTATION_COUNT; m++)
        if (strcmp(name, mutation_names[m]) == 0)
            return (enum sim_mutation)m;
    fprintf(stderr, "sim: there is no mutation '%s'\n", name);
    exit(2);
}

int main(int argc, char *argv[])
{
    static const struct option longs[] = {
        {"seeds", required_argument, NULL, 'n'},
        {"from", required_argument, NULL, 'f'},
        {"seed", required_argument, NULL, 's'},
        {"replay", required_argument, NULL, 'r'},
        {"mutate", required_argument, NULL, 'm'},
        {"mutants", no_argument, NULL, 'M'},
        {"script", no_argument, NULL, 'p'},
        {"jobs", required_argument, NULL, 'j'},
        {NULL, 0, NULL, 0},
    };
    const char *seeds = getenv("SEEDS");
    struct options opt = {
        .seeds = seeds && *seeds ? strtoull(seeds, NULL, 10) : 200, .from = 1, .jobs = 2};

    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 'n':
            opt.seeds = strtoull(optarg, NULL, 10);
            break;
        case 's':
            opt.one = true;
            opt.from = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            opt.from = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            opt.replay = optarg;
            break;
        case 'm':
            opt.mutation = mutation_of(optarg);
            break;
        case 'j':
            opt.jobs = strtoull(optarg, NULL, 10);
            opt.jobs = opt.jobs < 1 ? 1 : opt.jobs > JOBS_MAX ? JOBS_MAX : opt.jobs;
            break;
        case 'M':
            opt.mutants = true;
            break;
        case 'p':
            opt.script_only = opt.one = true;
            break;
        default:
            return 2;
        }
    }
    if (opt.mutants)
        return run_mutants();
    return opt.replay || opt.one ? run_one(&opt) : run_seeds(&opt);
}
