#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const sim_app_names[SIM_APPS] = {"a", "b", "c", "p"};

#define SETTLE (300 * RS_SEC) /* bound of the time in which all must be as it is wanted */

/* --- saying -------------------------------------------------------------------------------------- */

static void print_time(int64_t now)
{
    printf("%9.3f  ", (double)now / 1e9);
}

void sim_say(const struct sim *s, const char *fmt, ...)
{
    va_list args;

    if (!s->loud)
        return;
    print_time(s->now);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n");
}

void sim_violate(struct sim *s, const char *invariant, const char *fmt, ...)
{
    va_list args;

    if (s->invariant[0])
        return;
    snprintf(s->invariant, sizeof(s->invariant), "%s", invariant);
    va_start(args, fmt);
    vsnprintf(s->violation, sizeof(s->violation), fmt, args);
    va_end(args);
    s->violated_at = s->now;
    sim_say(s, "VIOLATED %s: %s", s->invariant, s->violation);
}

/* --- looking up ---------------------------------------------------------------------------------- */

uint64_t sim_random(struct sim *s)
{
    uint64_t x = s->random += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (x ^ (x >> 31)) >> 11;
}

struct sim_node *sim_node_at(struct sim *s, int64_t index)
{
    return index >= 0 && (size_t)index < s->n_nodes && s->nodes[index].sim ? &s->nodes[index]
                                                                           : NULL;
}

struct sim_node *sim_node_find(struct sim *s, const char *node_id)
{
    struct sim_node *n = sim_node_at(s, strtol(node_id + 1, NULL, 10));

    return n && strcmp(n->id, node_id) == 0 ? n : NULL;
}

int sim_app_index(const char *name)
{
    for (int i = 0; i < SIM_APPS; i++)
        if (strcmp(name, sim_app_names[i]) == 0)
            return i;
    return -1;
}

int sim_deployment_index(const char *name)
{
    return strcmp(name, "A") == 0 ? SIM_A : strcmp(name, "B") == 0 ? SIM_B : -1;
}

/* --- time ---------------------------------------------------------------------------------------- */

static void note_free(struct sim_note *note)
{
    json_decref(note->json);
    if (note->request) {
        note->request->pending--;
        sim_request_settle(note->request);
    }
    free(note);
}

/* A message: it arrives if both ends still have the connection it was sent on. */
static bool is_cut(const struct sim_note *note)
{
    const struct sim_node *n = note->node;

    return note->link && note->link != (note->down ? n->link : n->head_link);
}

static int64_t held_until(const struct sim_note *note)
{
    const struct sim_node *n = note->node;
    int64_t until = note->link ? n->away_until : 0;

    if (note->down || !note->link)
        until = n->paused_until > until ? n->paused_until : until;
    return until;
}

static void happen(struct rs_sim_event *e, void *arg)
{
    struct sim *s = arg;
    struct sim_note *note = e->data;
    struct sim_node *n = note->node;

    if (n && (n->life != note->life || is_cut(note))) {
        note_free(note);
        return;
    }
    if (n && held_until(note) > s->now) {
        e->at = held_until(note);
        rs_sim_post(&s->events, *e);
        return;
    }
    note->fn(note);
    if (n && n->agent && n->life == note->life)
        sim_node_settle(n);
    note_free(note);
}

struct sim_note *sim_later(struct sim *s, int64_t delay, void (*fn)(struct sim_note *note),
                           struct sim_node *n)
{
    struct sim_note *note = rs_alloc(sizeof(*note));

    *note = (struct sim_note){.sim = s, .node = n, .life = n ? n->life : 0, .fn = fn};
    rs_sim_post(&s->events,
                (struct rs_sim_event){.at = s->now + delay, .fn = happen, .data = note});
    return note;
}

void sim_run_until(struct sim *s, int64_t until)
{
    struct rs_sim_event e;
    unsigned at_once = 0;

    while (!s->invariant[0] && rs_sim_take(&s->events, until, &e)) {
        at_once = e.at > s->now ? 0 : at_once + 1;
        s->now = e.at > s->now ? e.at : s->now;
        s->events_run++;
        e.fn(&e, s);
        if (at_once > 200000)
            sim_violate(s, "spins", "time does not go on: a deadline that does not move");
    }
    if (!s->invariant[0])
        s->now = until;
}

/* --- what the script says ------------------------------------------------------------------------ */

static void end_pause(struct sim_note *note)
{
    sim_say(note->sim, "n%u goes on", note->node->index);
}

static void start_again(struct sim_note *note)
{
    struct sim *s = note->sim;

    if (!s->nodes[note->number].agent)
        sim_node_start(s, (unsigned)note->number, s->nodes[note->number].cpus);
}

static void kill_node(struct sim *s, struct sim_node *n, const int64_t *args)
{
    if (!n->agent)
        return;
    sim_check_break(s, args[2] * RS_MS);
    sim_node_stop(n);
    if (!args[1])
        sim_head_drop(n);
    sim_later(s, args[2] * RS_MS, start_again, NULL)->number = n->index;
}

static void fault_on_node(struct sim *s, const struct sim_input *in)
{
    struct sim_node *n = sim_node_at(s, in->args[0]);
    int64_t span = in->args[1] * RS_MS;

    if (!n)
        return;
    switch (in->kind) {
    case IN_KILL_NODE:
        kill_node(s, n, in->args);
        break;
    case IN_PAUSE:
        sim_check_break(s, span);
        n->paused_until = s->now + span;
        sim_later(s, 0, end_pause, n);
        break;
    case IN_PARTITION:
        sim_check_break(s, span);
        n->away_until = s->now + span;
        break;
    case IN_SLOW:
        sim_check_break(s, in->args[2] * RS_MS);
        n->slow = in->args[1] * RS_MS;
        n->slow_until = s->now + in->args[2] * RS_MS;
        break;
    default: /* nothing ends: what runs goes on */
        if (n->link) {
            sim_head_cut(n);
            sim_join_later(n, span);
        }
    }
}

static void proc_hangs(struct sim *s, const struct sim_input *in)
{
    struct sim_proc *p = sim_proc_pick(s, (int)in->args[0], in->args[1]);

    if (!p)
        return;
    sim_check_break(s, 20 * RS_SEC);
    s->apps[in->args[0]].was_hurt = true;
    if (in->kind == IN_HANG) {
        p->hangs = true;
        return;
    }
    sim_proc_die(p, 9);
}

static void head_again(struct sim_note *note)
{
    if (!note->sim->controller)
        sim_head_start(note->sim);
}

static void new_head(struct sim *s, int64_t after)
{
    if (!s->controller)
        return;
    sim_head_stop(s);
    sim_later(s, after, head_again, NULL);
}

static void carry_out(struct sim *s, const struct sim_input *in)
{
    const int64_t *args = in->args;
    bool of_app = in->kind == IN_DEPLOY || in->kind == IN_SCALE || in->kind == IN_DELETE ||
                  in->kind == IN_LOAD || in->kind == IN_KILL_REPLICA || in->kind == IN_CRASH ||
                  in->kind == IN_HANG;

    if (of_app && (args[0] < 0 || args[0] >= SIM_APPS))
        return;
    switch (in->kind) {
    case IN_NODE:
        if (args[0] >= 0 && args[0] < 10000 && args[1] > 0)
            sim_node_start(s, (unsigned)args[0], args[1]);
        break;
    case IN_DEPLOY:
        sim_deploy(s, in);
        break;
    case IN_SCALE:
        sim_scale(s, (int)args[0], (unsigned)args[1]);
        break;
    case IN_DELETE:
        sim_delete(s, (int)args[0]);
        break;
    case IN_LOAD:
        sim_load(s, (int)args[0], args[1], args[2] * RS_MS);
        break;
    case IN_KILL_REPLICA:
    case IN_HANG:
        proc_hangs(s, in);
        break;
    case IN_CRASH:
        sim_check_break(s, 20 * RS_SEC);
        s->apps[args[0]].crashes = (unsigned)args[1];
        s->apps[args[0]].was_hurt = true;
        break;
    case IN_NEW_HEAD:
        new_head(s, args[0] * RS_MS);
        break;
    case IN_STORE_FAILS:
        s->store_fails_until = s->now + args[0] * RS_MS;
        break;
    default:
        fault_on_node(s, in);
    }
}

static void on_input(struct sim_note *note)
{
    const struct sim_input *in = &note->input;
    struct rs_buf text = {0};

    sim_input_print(in, &text);
    sim_say(note->sim, "> %.*s", (int)rs_buf_len(&text) - 1, rs_buf_text(&text));
    rs_buf_fini(&text);
    carry_out(note->sim, in);
}

/* --- the run ------------------------------------------------------------------------------------- */

/* What can never come up is replaced by something that can. */
static void mend(struct sim *s)
{
    for (int a = 0; a < SIM_APPS; a++) {
        struct sim_app *app = &s->apps[a];
        struct sim_input in = {.kind = IN_DEPLOY};

        sim_load(s, a, 0, 0);
        app->crashes = 0;
        if (!app->live.there || (!app->live.args[DEPLOY_CRASH] && !app->was_hurt))
            continue;
        memcpy(in.args, app->live.args, sizeof(in.args));
        in.args[DEPLOY_CRASH] = 0;
        in.args[DEPLOY_VERSION] += 1000;
        sim_deploy(s, &in);
    }
}

static void end_faults(struct sim *s)
{
    s->ending = true;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sim_node *n = &s->nodes[i];

        n->away_until = n->slow_until = 0;
        n->paused_until = n->paused_until > s->now ? s->now : n->paused_until;
    }
    s->store_fails_until = 0;
}

static void wait_until_reached(struct sim *s)
{
    int64_t limit = s->now + SETTLE;
    rs_auto(rs_buf_fini) struct rs_buf why = {0};

    while (!s->invariant[0] && s->now < limit) {
        rs_buf_clear(&why);
        if (sim_check_reached(s, &why))
            return;
        sim_run_until(s, s->now + RS_SEC);
    }
    sim_violate(s, "converges", "after %d s without a fault: %s", (int)(SETTLE / RS_SEC),
                rs_buf_text(&why));
}

void sim_run(struct sim *s, const struct sim_script *script)
{
    int64_t end = 0;

    sim_head_start(s);
    for (size_t i = 0; i < script->n; i++) {
        struct sim_note *note = sim_later(s, script->inputs[i].at, on_input, NULL);

        note->input = script->inputs[i];
        end = script->inputs[i].at > end ? script->inputs[i].at : end;
    }
    sim_run_until(s, s->now + end + RS_SEC);
    end_faults(s);
    /* Nodes and a head that are down come back within that time. */
    sim_run_until(s, s->now + 25 * RS_SEC);
    if (s->invariant[0])
        return;
    mend(s);
    wait_until_reached(s);
    sim_run_until(s, s->now + 12 * RS_SEC); /* the deadline of the last request */
    sim_check_requests(s);
}

void sim_open(struct sim *s, enum sim_mutation mutation, bool loud)
{
    *s = (struct sim){.now = RS_SEC, .random = 42, .mutation = mutation, .loud = loud};
    rs_list_init(&s->requests);
    /* Nodes do not move: others point to them. */
    s->nodes = rs_grow(NULL, &s->cap_nodes, 1024, sizeof(*s->nodes));
    memset(s->nodes, 0, s->cap_nodes * sizeof(*s->nodes));
}

void sim_close(struct sim *s)
{
    struct rs_sim_event e;

    while (rs_sim_take(&s->events, INT64_MAX, &e))
        note_free(e.data);
    s->ending = true;
    for (size_t i = 0; i < s->n_nodes; i++)
        sim_node_stop(&s->nodes[i]);
    while (rs_sim_take(&s->events, INT64_MAX, &e))
        note_free(e.data);
    sim_requests_drop(s);
    rs_controller_free(s->controller);
    json_decref(s->saved);
    rs_sim_events_fini(&s->events);
    free(s->nodes);
}
