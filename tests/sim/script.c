#include "tests/sim/script.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *args[SIM_ARGS + 1];
} kinds[IN_KINDS] = {
    [IN_NODE] = {"node", {"n", "cpu"}},
    [IN_DEPLOY] = {"deploy",
                   {"app", "version", "user", "replicas", "max", "side", "cpu_percent", "ongoing",
                    "start", "crash"}},
    [IN_SCALE] = {"scale", {"app", "replicas"}},
    [IN_DELETE] = {"delete", {"app"}},
    [IN_LOAD] = {"load", {"app", "rate", "service"}},
    [IN_KILL_NODE] = {"kill-node", {"n", "silent", "back"}},
    [IN_PAUSE] = {"pause", {"n", "for"}},
    [IN_PARTITION] = {"partition", {"n", "for"}},
    [IN_SLOW] = {"slow", {"n", "delay", "for"}},
    [IN_CUT] = {"cut", {"n", "back"}},
    [IN_KILL_REPLICA] = {"kill-replica", {"app", "which"}},
    [IN_CRASH] = {"crash-starts", {"app", "count"}},
    [IN_HANG] = {"hang-replica", {"app", "which"}},
    [IN_NEW_HEAD] = {"new-head", {"after"}},
    [IN_STORE_FAILS] = {"store-fails", {"for"}},
};

void sim_script_fini(struct sim_script *s)
{
    free(s->inputs);
    *s = (struct sim_script){0};
}

void sim_script_add(struct sim_script *s, const struct sim_input *in)
{
    s->inputs = rs_grow(s->inputs, &s->cap, s->n + 1, sizeof(*s->inputs));
    s->inputs[s->n++] = *in;
}

/* --- text ---------------------------------------------------------------------------------------- */

void sim_input_print(const struct sim_input *in, struct rs_buf *out)
{
    rs_buf_printf(out, "%" PRId64 ".%03" PRId64 " %s", in->at / RS_SEC, in->at % RS_SEC / RS_MS,
                  kinds[in->kind].name);
    for (size_t i = 0; kinds[in->kind].args[i]; i++)
        rs_buf_printf(out, " %s=%" PRId64, kinds[in->kind].args[i], in->args[i]);
    rs_buf_puts(out, "\n");
}

void sim_script_print(const struct sim_script *s, struct rs_buf *out)
{
    rs_buf_printf(out, "seed %" PRIu64 "\n", s->seed);
    for (size_t i = 0; i < s->n; i++)
        sim_input_print(&s->inputs[i], out);
}

static int read_arg(struct sim_input *in, const char *word, struct rs_error *err)
{
    const char *is = strchr(word, '=');

    for (size_t i = 0; is && kinds[in->kind].args[i]; i++) {
        char *end;

        if (strncmp(kinds[in->kind].args[i], word, (size_t)(is - word)) != 0 ||
            kinds[in->kind].args[i][is - word])
            continue;
        in->args[i] = strtoll(is + 1, &end, 10);
        if (!*end && end > is + 1)
            return 0;
    }
    return rs_error_set(err, RS_INVALID, "'%s' is no option of '%s'", word, kinds[in->kind].name);
}

static int read_input(struct sim_script *s, char *line, struct rs_error *err)
{
    struct sim_input in = {.kind = IN_KINDS};
    char *save = NULL, *time = strtok_r(line, " \t\r\n", &save);
    char *name = strtok_r(NULL, " \t\r\n", &save);

    if (!time || *time == '#')
        return 0;
    if (strcmp(time, "seed") == 0 && name) {
        s->seed = strtoull(name, NULL, 10);
        return 0;
    }
    in.at = (int64_t)(strtod(time, NULL) * 1000 + 0.5) * RS_MS;
    for (int k = 0; k < IN_KINDS; k++)
        if (name && strcmp(name, kinds[k].name) == 0)
            in.kind = (enum sim_input_kind)k;
    if (in.kind == IN_KINDS)
        return rs_error_set(err, RS_INVALID, "'%s' is nothing that can be done", name ? name : "");
    for (char *word; (word = strtok_r(NULL, " \t\r\n", &save));)
        if (read_arg(&in, word, err) < 0)
            return -1;
    sim_script_add(s, &in);
    return 0;
}

int sim_script_read(struct sim_script *s, const char *path, struct rs_error *err)
{
    FILE *f = fopen(path, "re");
    char line[512];
    int r = 0;

    if (!f)
        return rs_error_set(err, RS_NOT_FOUND, "cannot read '%s'", path);
    for (int number = 1; r == 0 && fgets(line, sizeof(line), f); number++)
        if (read_input(s, line, err) < 0)
            r = rs_error_wrap(err, "%s:%d", path, number);
    fclose(f);
    return r;
}

/* --- out of a seed ------------------------------------------------------------------------------- */

struct maker {
    struct sim_script *script;
    uint64_t random;
    int64_t nodes, cpu;
    int64_t version[4]; /* 0: not deployed */
    struct sim_input last[4];
};

static int64_t pick(struct maker *m, int64_t from, int64_t to)
{
    m->random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = m->random;

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return from + (int64_t)((x ^ (x >> 31)) % (uint64_t)(to - from + 1));
}

static void add(struct maker *m, int64_t at_ms, enum sim_input_kind kind, const int64_t *args,
                size_t n)
{
    struct sim_input in = {.at = at_ms * RS_MS, .kind = kind};

    memcpy(in.args, args, n * sizeof(*args));
    sim_script_add(m->script, &in);
}

#define ADD(m, at, kind, ...)                                                                      \
    add(m, at, kind, (const int64_t[]){__VA_ARGS__},                                               \
        sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* All that is wanted fits twice, so that it also fits while one node is away. */
static void make_deploy(struct maker *m, int64_t at, bool crashes)
{
    int64_t app = pick(m, 0, 3), share = m->nodes * m->cpu / 2 / 4;
    int64_t most = share < 1 ? 1 : share > 6 ? 6 : share;
    struct sim_input in = {.at = at * RS_MS, .kind = IN_DEPLOY};

    if (m->version[app] && pick(m, 0, 3) > 0) {
        in = m->last[app]; /* one thing is another one */
        in.at = at * RS_MS;
        in.args[DEPLOY_CRASH] = 0;
        switch (pick(m, 0, 5)) {
        case 0:
            in.args[DEPLOY_USER]++;
            break;
        case 1:
            in.args[DEPLOY_REPLICAS] = pick(m, 1, most);
            break;
        default:
            in.args[DEPLOY_VERSION] = ++m->version[app];
        }
    } else {
        in.args[DEPLOY_APP] = app;
        in.args[DEPLOY_VERSION] = ++m->version[app];
        in.args[DEPLOY_REPLICAS] = pick(m, 1, most);
        in.args[DEPLOY_MAX] = pick(m, 0, 2) ? 0 : in.args[DEPLOY_REPLICAS] + pick(m, 1, 3);
        in.args[DEPLOY_SIDE] = pick(m, 0, 3) ? 0 : pick(m, 1, 2);
        in.args[DEPLOY_CPU] = pick(m, 1, 4) * 25;
        in.args[DEPLOY_ONGOING] = pick(m, 1, 4);
        in.args[DEPLOY_START] = pick(m, 0, 3) * 200;
    }
    if (crashes && pick(m, 0, 3) == 0)
        in.args[DEPLOY_CRASH] = pick(m, 1, 2);
    m->last[app] = in;
    sim_script_add(m->script, &in);
}

static void make_order(struct maker *m, int64_t at, bool crashes)
{
    int64_t app = pick(m, 0, 3);

    switch (pick(m, 0, 9)) {
    case 0:
        ADD(m, at, IN_DELETE, app);
        break;
    case 1:
    case 2:
        ADD(m, at, IN_SCALE, app, pick(m, 1, 4));
        break;
    case 3:
    case 4:
    case 5:
        ADD(m, at, IN_LOAD, app, pick(m, 0, 4) * 5, pick(m, 1, 5) * 40);
        break;
    default:
        make_deploy(m, at, crashes);
    }
}

static void make_node_fault(struct maker *m, int64_t at)
{
    int64_t n = pick(m, 0, m->nodes - 1);

    switch (pick(m, 0, 4)) {
    case 0:
        ADD(m, at, IN_KILL_NODE, n, pick(m, 0, 1), pick(m, 1, 20) * 1000);
        break;
    case 1:
        ADD(m, at, IN_PAUSE, n, pick(m, 1, 20) * 1000);
        break;
    case 2:
        ADD(m, at, IN_PARTITION, n, pick(m, 1, 20) * 1000);
        break;
    case 3:
        ADD(m, at, IN_SLOW, n, pick(m, 1, 20) * 50, pick(m, 1, 10) * 1000);
        break;
    default:
        ADD(m, at, IN_CUT, n, pick(m, 1, 20) * 100);
    }
}

static void make_replica_fault(struct maker *m, int64_t at)
{
    int64_t app = pick(m, 0, 3);

    switch (pick(m, 0, 2)) {
    case 0:
        ADD(m, at, IN_KILL_REPLICA, app, pick(m, 0, 5));
        break;
    case 1:
        ADD(m, at, IN_CRASH, app, pick(m, 1, 4));
        break;
    default:
        ADD(m, at, IN_HANG, app, pick(m, 0, 5));
    }
}

static void make_head_fault(struct maker *m, int64_t at)
{
    switch (pick(m, 0, 3)) {
    case 0:
        ADD(m, at, IN_STORE_FAILS, pick(m, 1, 5) * 1000);
        break;
    case 1:
        ADD(m, at, IN_CUT, pick(m, 0, m->nodes - 1), pick(m, 1, 20) * 100);
        break;
    default:
        ADD(m, at, IN_NEW_HEAD, pick(m, 0, 5) * 400);
    }
}

void sim_script_make(struct sim_script *s, uint64_t seed)
{
    struct maker m = {.script = s, .random = seed * 7919 + 1};
    enum { CALM, HEAD, NODES, ALL } mode = seed % 4;
    int64_t at = 100, steps;

    s->seed = seed;
    m.nodes = pick(&m, 2, 6);
    m.cpu = pick(&m, 2, 6);
    for (int64_t n = 0; n < m.nodes; n++)
        ADD(&m, 0, IN_NODE, n, m.cpu);
    steps = pick(&m, 8, 28);
    for (int64_t i = 0; i < steps; i++) {
        bool fault = i > 3 && mode != CALM && pick(&m, 0, 2) == 0;

        if (i < 2)
            make_deploy(&m, at, false);
        else if (i < 4)
            ADD(&m, at, IN_LOAD, pick(&m, 0, 3), pick(&m, 1, 4) * 5, pick(&m, 1, 5) * 40);
        else if (!fault)
            make_order(&m, at, mode == ALL || mode == CALM);
        else if (mode == HEAD)
            make_head_fault(&m, at);
        else if (mode == NODES || pick(&m, 0, 2) == 0)
            make_node_fault(&m, at);
        else if (pick(&m, 0, 2) == 0)
            make_head_fault(&m, at);
        else
            make_replica_fault(&m, at);
        /* Often all is at rest before the next one, sometimes all is under way. */
        at += mode == CALM || pick(&m, 0, 1) ? pick(&m, 1, 40) * 250 : pick(&m, 1, 30) * 20;
    }
}
