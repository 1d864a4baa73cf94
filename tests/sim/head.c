/* Around the controller: its connections to the nodes, its store, and what people ask of it. As cmd/head.c
 * and cmd/saved.c do it. */
#include "core/config/config.h"
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DELAY RS_MS          /* of a message */
#define SILENT (10 * RS_SEC) /* then a node is as good as gone */
#define AGAIN (500 * RS_MS)  /* a node tries to find its head again */

/* --- messages ------------------------------------------------------------------------------------ */

static int64_t delay_of(const struct sim_node *n)
{
    return DELAY + (n->sim->now < n->slow_until ? n->slow : 0);
}

/* In the order in which they were sent. */
static struct sim_note *send(struct sim_node *n, int64_t *last, void (*fn)(struct sim_note *note))
{
    struct sim *s = n->sim;
    int64_t at = s->now + delay_of(n);

    *last = at > *last ? at : *last;
    return sim_later(s, *last - s->now, fn, n);
}

static void send_up(struct sim_node *n, void (*fn)(struct sim_note *note), json_t *json,
                    int64_t number)
{
    struct sim_note *note;

    if (!n->link) {
        json_decref(json);
        return;
    }
    note = send(n, &n->last_up, fn);
    note->link = n->link;
    note->json = json;
    note->number = number;
}

static void send_down(struct sim *s, const char *node_id, void (*fn)(struct sim_note *note),
                      const json_t *json)
{
    struct sim_node *n = sim_node_find(s, node_id);
    struct sim_note *note;

    if (!n || !n->head_link)
        return;
    note = send(n, &n->last_down, fn);
    note->link = n->head_link;
    note->down = true;
    note->json = json_deep_copy(json);
}

/* --- connections --------------------------------------------------------------------------------- */

static void join(struct sim_note *note);

void sim_join_later(struct sim_node *n, int64_t delay)
{
    sim_later(n->sim, delay, join, n);
}

static void hung_up(struct sim_note *note)
{
    struct sim_node *n = note->node;

    if (n->link != (uint64_t)note->number)
        return;
    n->link = 0;
    sim_join_later(n, AGAIN);
}

void sim_head_drop(struct sim_node *n)
{
    struct sim *s = n->sim;

    if (!n->head_link)
        return;
    sim_say(s, "the head lost %s", n->id);
    sim_later(s, DELAY, hung_up, n)->number = (int64_t)n->head_link;
    n->head_link = 0;
    rs_controller_node_left(s->controller, n->id, s->now);
    sim_head_settle(s);
}

static void ev_ghost(struct sim_note *note)
{
    struct sim *s = note->sim;

    if (!s->controller || s->head_since != note->number)
        return;
    sim_say(s, "the head lost %s", note->id);
    rs_controller_node_left(s->controller, note->id, s->now);
    sim_head_settle(s);
}

void sim_head_mourns(struct sim_node *n)
{
    struct sim *s = n->sim;
    struct sim_note *note;

    if (!n->head_link || !s->controller)
        return;
    note = sim_later(s, n->heard_at + SILENT > s->now ? n->heard_at + SILENT - s->now : 0, ev_ghost,
                     NULL);
    note->number = s->head_since;
    snprintf(note->id, sizeof(note->id), "%s", n->id);
    n->head_link = 0;
}

void sim_head_cut(struct sim_node *n)
{
    n->link = 0;
    sim_head_drop(n);
}

static void join(struct sim_note *note)
{
    struct sim_node *n = note->node;
    struct sim *s = n->sim;
    rs_auto(rs_json_decrefp) json_t *total = json_pack("{s:f}", "CPU", (double)n->cpus);
    char address[32];
    struct rs_error err = {0};
    struct rs_controller_node node = {
        .node_id = n->id, .name = n->id, .version = "1", .address = address, .resources = total};

    if (n->link)
        return;
    if (!s->controller || s->now < n->away_until) {
        sim_join_later(n, AGAIN);
        return;
    }
    if (s->mutation == SIM_MUTATION_DOUBLE_PLACE)
        json_object_set_new(total, "CPU", json_real(2.0 * (double)n->cpus));
    if (n->head_link) /* it comes back before its old connection was seen to end */
        sim_head_drop(n);
    snprintf(address, sizeof(address), "10.0.0.%u:7000", n->index);
    n->link = n->head_link = ++s->links;
    n->last_up = n->last_down = s->now;
    n->heard_at = s->now;
    n->dirty = true;
    sim_say(s, "%s joins", n->id);
    if (rs_controller_node_joined(s->controller, &node, s->now, &err) < 0)
        sim_violate(s, "refused", "JOIN of %s: %s", n->id, err.msg);
    sim_head_settle(s);
}

static void look_for_silent(struct sim_note *note)
{
    struct sim *s = note->sim;

    if (!s->controller || s->head_since != note->number)
        return;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sim_node *n = &s->nodes[i];

        if (n->head_link && s->now - n->heard_at > SILENT)
            sim_head_drop(n);
    }
    sim_later(s, RS_SEC, look_for_silent, NULL)->number = s->head_since;
}

/* --- what nodes say ------------------------------------------------------------------------------ */

static void on_report(struct sim_note *note)
{
    struct sim_node *n = note->node;
    struct sim *s = n->sim;
    struct rs_error err = {0};

    n->heard_at = s->now;
    if (s->mutation == SIM_MUTATION_DROP_REPORTS && n->index == 0 && n->reports++ > 5)
        return;
    if (rs_controller_report(s->controller, n->id, note->json, s->now, &err) < 0)
        sim_violate(s, "refused", "REPORT of %s: %s", n->id, err.msg);
    sim_head_settle(s);
}

static void on_built(struct sim_note *note)
{
    struct sim *s = note->sim;

    note->node->heard_at = s->now;
    if (note->number)
        rs_controller_graph(s->controller, note->node->id, note->json, s->now);
    else
        rs_controller_build_failed(s->controller, note->node->id, note->json, s->now);
    sim_head_settle(s);
}

void sim_send_report(struct sim_node *n, json_t *json)
{
    send_up(n, on_report, json, 0);
}

void sim_send_built(struct sim_node *n, json_t *json, bool ok)
{
    send_up(n, on_built, json, ok);
}

/* --- what the controller says -------------------------------------------------------------------- */

static void want_none(json_t *apps)
{
    size_t i, k;
    json_t *app, *d;

    json_array_foreach (apps, i, app)
        json_array_foreach (json_object_get(app, "deployments"), k, d) {
            json_object_set_new(d, "replicas", json_integer(0));
            json_object_set_new(d, "ranks", json_array());
        }
}

/* A bug to be found: old replicas go before new ones come. */
static void stop_first(struct sim_node *n, const json_t *target)
{
    rs_auto(rs_json_decrefp) json_t *none = json_deep_copy(target);

    want_none(json_object_get(none, "apps"));
    want_none(json_object_get(none, "old"));
    if (rs_agent_target(n->agent, none, n->sim->now, NULL) < 0)
        abort();
    json_object_set_new((json_t *)(uintptr_t)target, "revision",
                        json_integer(rs_json_int(target, "revision", 0) + 1));
}

static void on_target(struct sim_note *note)
{
    struct sim_node *n = note->node;
    struct sim *s = n->sim;
    struct rs_error err = {0};

    n->targets++;
    if (s->mutation == SIM_MUTATION_DEAF_NODE && n->index == 0 && n->targets % 2 == 0)
        return;
    if (s->mutation == SIM_MUTATION_STOP_FIRST && n->targets % 3 == 0)
        stop_first(n, note->json);
    if (rs_agent_target(n->agent, note->json, s->now, &err) < 0)
        sim_violate(s, "refused", "TARGET for %s: %s", n->id, err.msg);
}

static void on_build(struct sim_note *note)
{
    struct sim_node *n = note->node;
    struct rs_error err = {0};

    if (rs_agent_build(n->agent, note->json, n->sim->now, &err) < 0)
        sim_violate(n->sim, "refused", "BUILD for %s: %s", n->id, err.msg);
}

static void op_target(const char *node_id, const json_t *target, void *arg)
{
    send_down(arg, node_id, on_target, target);
}

static void op_build(const char *node_id, const json_t *build, void *arg)
{
    send_down(arg, node_id, on_build, build);
}

static void op_core(const char *node_id, const json_t *down, void *arg)
{
}

static void op_event(const struct rs_controller_event *e, void *arg)
{
    struct sim *s = arg;

    if (e->kind != RS_EVENT_REPLICA)
        sim_say(s, "  %s%s%s%s: %s %s", e->app ? e->app : "", e->deployment ? "#" : "",
                e->deployment ? e->deployment : "", e->node_id ? e->node_id : "", e->status,
                e->text ? e->text : "");
    s->unsaved |= e->kind == RS_EVENT_SCALE ||
                  (e->kind == RS_EVENT_ROLLOUT && strcmp(e->status, "STEP") != 0);
    if (e->kind == RS_EVENT_SCALE) {
        if (sim_app_index(e->app) >= 0)
            sim_check_scaled(s, sim_app_index(e->app), e);
    }
}

static const struct rs_controller_ops ops = {
    .target = op_target, .build = op_build, .core = op_core, .event = op_event};

/* --- the store ----------------------------------------------------------------------------------- */

/* 0: it is on the disk. */
static int save(struct sim *s)
{
    s->unsaved = false;
    if (s->now < s->store_fails_until)
        return -1;
    if (s->mutation != SIM_MUTATION_FORGETFUL || s->now < 2 * RS_SEC) {
        json_decref(s->saved);
        s->saved = rs_controller_desired(s->controller);
    }
    for (int i = 0; i < SIM_APPS; i++)
        s->apps[i].saved = s->apps[i].live;
    return 0;
}

static struct rs_config *parse(struct sim *s, const char *text)
{
    struct rs_config *c = NULL;
    rs_auto(rs_diags_fini) struct rs_diags diags = {0};

    if (rs_config_parse(&c, text, strlen(text), NULL, &diags) < 0) {
        rs_auto(rs_buf_fini) struct rs_buf why = {0};

        rs_diags_print(&why, &diags);
        sim_violate(s, "refused", "a configuration: %s", rs_buf_text(&why));
    }
    return c;
}

static struct rs_config *kept(struct sim *s, const json_t *j)
{
    rs_auto(rs_freep) char *text = rs_json_dump(json_object_get(j, "document"));

    return json_is_object(j) ? parse(s, text) : NULL;
}

static void restore(struct sim *s)
{
    rs_auto(rs_json_decrefp) json_t *saved = s->saved ? json_deep_copy(s->saved) : NULL;
    struct rs_config *c = kept(s, json_object_get(saved, "config"));
    const char *name;
    json_t *app;

    if (s->mutation != SIM_MUTATION_KEEPS_COUNT)
        rs_controller_restore_counts(s->controller, json_object_get(saved, "counts"));
    rs_controller_restore_rolls(s->controller, json_object_get(saved, "rolls"));
    if (c && rs_controller_apply(s->controller, c, s->now, NULL) < 0)
        sim_violate(s, "refused", "a kept configuration");
    json_object_foreach (json_object_get(saved, "apps"), name, app) {
        c = kept(s, app);
        if (c && rs_controller_put(s->controller, c, s->now, NULL) < 0)
            sim_violate(s, "refused", "the kept application %s", name);
    }
    for (int i = 0; i < SIM_APPS; i++)
        s->apps[i].live = s->apps[i].saved;
    sim_check_restored(s);
}

/* --- life ---------------------------------------------------------------------------------------- */

static void on_wake(struct sim_note *note)
{
    struct sim *s = note->sim;

    if (!s->controller || s->head_since != note->number)
        return;
    s->head_wake_at = INT64_MAX;
    if (rs_controller_deadline(s->controller) <= s->now)
        rs_controller_tick(s->controller, s->now);
    sim_head_settle(s);
}

void sim_head_settle(struct sim *s)
{
    int64_t at = rs_controller_deadline(s->controller);

    if (s->unsaved)
        (void)save(s);
    if (at >= s->head_wake_at)
        return;
    at = at < s->now ? s->now : at;
    s->head_wake_at = at;
    sim_later(s, at - s->now, on_wake, NULL)->number = s->head_since;
}

void sim_head_start(struct sim *s)
{
    struct rs_controller_conf conf = {.wall_offset_s = 1e9, .node_id = "n0"};
    struct rs_error err = {0};

    sim_say(s, "the head starts");
    if (rs_controller_new(&s->controller, &conf, &ops, s, &err) < 0)
        abort();
    s->head_since = ++s->now; /* its number */
    s->head_wake_at = INT64_MAX;
    restore(s);
    sim_later(s, RS_SEC, look_for_silent, NULL)->number = s->head_since;
    sim_head_settle(s);
}

void sim_head_stop(struct sim *s)
{
    sim_say(s, "the head is killed");
    rs_controller_free(s->controller);
    s->controller = NULL;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct sim_node *n = &s->nodes[i];

        if (n->link)
            sim_later(s, DELAY, hung_up, n)->number = (int64_t)n->link;
        n->head_link = 0;
    }
}

/* --- orders -------------------------------------------------------------------------------------- */

static void print_app(struct rs_buf *out, int app, const struct sim_wish *w)
{
    const int64_t *a = w->args;

    rs_buf_printf(out,
                  "- name: %s\n  import_path: \"m:v%dc%ds%dt%d\"\n  route_prefix: /%s\n"
                  "  external_scaler_enabled: %s\n  deployments:\n"
                  "  - {name: A, max_ongoing_requests: %d, user_config: {u: %d}, "
                  "health_check_period_s: 2, health_check_timeout_s: 3, "
                  "graceful_shutdown_timeout_s: 8, ray_actor_options: {num_cpus: %d.%02d}, ",
                  sim_app_names[app], (int)a[DEPLOY_VERSION], (int)a[DEPLOY_CRASH],
                  a[DEPLOY_SIDE] > 0, (int)a[DEPLOY_START], sim_app_names[app],
                  a[DEPLOY_MAX] ? "false" : "true", (int)a[DEPLOY_ONGOING], (int)a[DEPLOY_USER],
                  (int)a[DEPLOY_CPU] / 100, (int)a[DEPLOY_CPU] % 100);
    if (a[DEPLOY_MAX])
        rs_buf_printf(out,
                      "autoscaling_config: {min_replicas: %d, max_replicas: %d, "
                      "target_ongoing_requests: 1, look_back_period_s: 2, upscale_delay_s: 1, "
                      "downscale_delay_s: 5}}\n",
                      (int)a[DEPLOY_REPLICAS], (int)a[DEPLOY_MAX]);
    else
        rs_buf_printf(out, "num_replicas: %d}\n", (int)a[DEPLOY_REPLICAS]);
    if (a[DEPLOY_SIDE])
        rs_buf_printf(out,
                      "  - {name: B, num_replicas: %d, max_ongoing_requests: %d, "
                      "health_check_period_s: 2, health_check_timeout_s: 3, "
                      "graceful_shutdown_timeout_s: 8, "
                      "ray_actor_options: {num_cpus: %d.%02d}}\n",
                      (int)a[DEPLOY_SIDE], (int)a[DEPLOY_ONGOING], (int)a[DEPLOY_CPU] / 100,
                      (int)a[DEPLOY_CPU] % 100);
}

static struct rs_config *config_of(struct sim *s, bool put)
{
    rs_auto(rs_buf_fini) struct rs_buf text = {0};
    unsigned n = 0;

    rs_buf_puts(&text, "proxy_location: EveryNode\napplications:\n");
    for (int i = 0; i < SIM_APPS; i++)
        if (s->apps[i].live.there && (i == SIM_PUT) == put) {
            print_app(&text, i, &s->apps[i].live);
            n++;
        }
    if (n == 0)
        rs_buf_puts(&text, "  []\n");
    return parse(s, rs_buf_text(&text));
}

static void acknowledge(struct sim *s, const char *what)
{
    if (save(s) < 0)
        sim_say(s, "  %s: this holds, but a head that is started anew will not know", what);
    sim_head_settle(s);
}

int sim_deploy(struct sim *s, const struct sim_input *in)
{
    int app = (int)in->args[DEPLOY_APP];
    struct sim_app *x = &s->apps[app];
    struct rs_config *c;
    struct rs_error err = {0};

    if (!s->controller || in->args[DEPLOY_REPLICAS] < 1 || in->args[DEPLOY_ONGOING] < 1 ||
        (in->args[DEPLOY_MAX] && in->args[DEPLOY_MAX] < in->args[DEPLOY_REPLICAS]))
        return -1;
    sim_check_promise(s, app, in);
    if (in->args[DEPLOY_ONGOING] > x->most_ongoing)
        x->most_ongoing = in->args[DEPLOY_ONGOING];
    x->live.there = true;
    memcpy(x->live.args, in->args, sizeof(in->args));
    for (int i = 0; i < SIM_APPS; i++) /* a count holds until the next configuration */
        if (i == app || (app != SIM_PUT && i != SIM_PUT))
            s->apps[i].live.count = s->apps[i].live.args[DEPLOY_REPLICAS];
    c = config_of(s, app == SIM_PUT);
    if (!c)
        return -1;
    if ((app == SIM_PUT ? rs_controller_put(s->controller, c, s->now, &err)
                        : rs_controller_apply(s->controller, c, s->now, &err)) < 0)
        sim_violate(s, "refused", "a configuration: %s", err.msg);
    sim_check_steady(s, app);
    acknowledge(s, "deploy");
    return 0;
}

void sim_delete(struct sim *s, int app)
{
    if (!s->controller || !s->apps[app].live.there)
        return;
    s->apps[app].promised = false;
    s->apps[app].live.there = false;
    if (!rs_controller_delete(s->controller, sim_app_names[app], s->now))
        sim_violate(s, "acknowledged", "application %s is not there, but it was deployed",
                    sim_app_names[app]);
    acknowledge(s, "delete");
}

void sim_scale(struct sim *s, int app, unsigned count)
{
    struct rs_error err = {0};

    if (!s->controller || !s->apps[app].live.there || s->apps[app].live.args[DEPLOY_MAX] ||
        rs_controller_scale(s->controller, sim_app_names[app], "A", count, s->now, &err) < 0) {
        sim_say(s, "  refused: %s", err.msg);
        return;
    }
    s->apps[app].promised = false;
    s->apps[app].live.count = count;
    acknowledge(s, "scale");
}
