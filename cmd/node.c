/* Joins the agent to what acts: a node's life. After each turn of the loop one hook does what is due: the
 * agent's tick, a report to the head, the end of a drain.
 */
#include "cmd/node-internal.h"

#include "cmd/verb.h"
#include "sched/message.h"
#include "sched/pyruntime/pyruntime.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* A report goes out at once on a change; while requests are under way its figures are kept fresh. A head
 * in another process is shown that this one lives; one in this process knows, and after STILL_MAX
 * reports without news hears nothing until there is some. */
enum { STILL_MAX = 5 };
enum { REPORT_EVERY_MS = 1000, REPORT_BUSY_MS = 200, REPORT_GAP_MS = 5, LAST_ANSWERS_MS = 1000 };
enum { REPORT_MAX = 1 << 20 }; /* bytes, where leaving out helps */

/* --- what is due after each turn ----------------------------------------------------------------- */

static void add_figures(const struct rs_dataplane_stat *s, void *arg)
{
    struct rs_report *report = arg;

    if (s->replica_id) {
        struct rs_report_replica *r = rs_report_replica(report, s->replica_id);

        if (r) {
            r->in_flight = s->in_flight;
            r->models = s->models;
            r->done = s->done;
            r->errors = s->errors;
        }
    } else {
        struct rs_report_deployment *d = rs_report_deployment(report, s->app, s->deployment);

        if (d) {
            d->queued = s->queued;
            d->load_us = s->load_us;
            d->router_fallbacks = s->fallbacks;
            d->dropped_full = s->dropped[0];
            d->dropped_shed = s->dropped[1];
            d->dropped_expired = s->dropped[2];
        }
    }
}

/* Routes of one application are added up. */
static void add_refused(const char *app, const char *cause, uint64_t n, void *arg)
{
    struct rs_report *report = arg;
    json_t *of;

    if (!report->refused)
        report->refused = json_object();
    of = json_object_get(report->refused, app);
    if (!of) {
        of = json_object();
        json_object_set_new(report->refused, app, of);
    }
    json_object_set_new(of, cause, json_integer((json_int_t)n + rs_json_int(of, cause, 0)));
}

/* The end of what replicas said of themselves; what they count stays. */
static void shorten(struct rs_report *report, size_t text_max)
{
    for (size_t i = 0; i < report->n_replicas + report->n_dead; i++) {
        struct rs_report_replica *r =
            i < report->n_replicas ? &report->replicas[i] : &report->dead[i - report->n_replicas];

        json_decref(r->stats);
        r->stats = NULL;
        rs_message_shorten(&r->message, text_max);
    }
    for (size_t i = 0; i < report->n_deployments; i++)
        rs_message_shorten(&report->deployments[i].last_error, text_max);
    for (size_t i = 0; i < report->n_zygotes; i++)
        rs_message_shorten(&report->zygotes[i].message, text_max);
}

/* A report is sent often: what replicas say must not make it long, or cost the node its head. */
static void offer_report(struct rs_node *n, struct rs_report *report)
{
    static const size_t text_max[] = {RS_MESSAGE_MAX, 400, 0};
    rs_auto(rs_freep) char *text = NULL;
    struct rs_error err = {0};
    bool is_long = false;
    int r;

    for (size_t i = 0; i <= RS_COUNT(text_max); i++) {
        rs_auto(rs_json_decrefp) json_t *j = rs_report_to_json(report);

        free(text);
        text = rs_json_dump(j);
        if (strlen(text) <= REPORT_MAX || i == RS_COUNT(text_max))
            break;
        is_long = true;
        shorten(report, text_max[i]);
    }
    r = rs_conn_offer_text(n->head, RS_MSG_REPORT, 0, text, &err);
    if (is_long && !n->long_reports)
        rs_log_warn(r == 0 ? "the report to the head was shortened" : "the head gets no report",
                    "bytes=%zu reason=\"%s\"", strlen(text),
                    r == 0 ? "what replicas tell is too long" : err.msg);
    n->long_reports = is_long;
}

/* Of deployments of which two versions run. */
static void add_tallies(const struct rs_node *n, struct rs_report *report)
{
    struct rs_tally old, fresh;

    for (size_t i = 0; i < report->n_deployments; i++) {
        struct rs_report_deployment *d = &report->deployments[i];
        const char *version = rs_dataplane_tally(n->dataplane, d->app, d->name, &old, &fresh);

        if (version && rs_report_deployment(report, d->app, d->name) == d) /* once for a name */
            d->versions = json_pack("{s:s, s:o, s:o}", "version", version, "old",
                                    rs_tally_to_json(&old), "new", rs_tally_to_json(&fresh));
    }
}

static void send_report(struct rs_node *n, int64_t now)
{
    rs_auto(rs_report_freep) struct rs_report *report = rs_agent_report(n->agent, now);

    rs_dataplane_stats(n->dataplane, add_figures, report);
    rs_dataplane_refused(n->dataplane, add_refused, report);
    add_tallies(n, report);
    n->busy = false;
    rs_advice_report(n->advice, report);
    for (size_t i = 0; i < report->n_replicas; i++)
        n->busy |= report->replicas[i].in_flight > 0;
    for (size_t i = 0; i < report->n_deployments; i++)
        n->busy |= report->deployments[i].queued > 0;
    if (n->busy)
        rs_agent_loaded(n->agent, now);
    offer_report(n, report);
    n->still = n->dirty || n->busy ? 0 : n->still + 1;
    n->dirty = false;
    n->reported_at = now;
    n->report_cost = rs_node_now(n) - now;
}

static void drain_step(struct rs_node *n, int64_t now)
{
    if (n->phase == FINISHING && (rs_dataplane_ongoing(n->dataplane) == 0 || now >= n->finish_by)) {
        n->phase = DRAINING;
        rs_helpers_stop(rs_advice_helpers(n->advice));
        rs_agent_drain(n->agent, now);
    }
    if ((n->phase != DRAINING && n->phase != KILLING) || !rs_agent_done(n->agent))
        return;
    if (!n->ended_at)
        n->ended_at = now;
    /* Whose replica had no more time reads so. */
    if (n->phase == DRAINING && rs_dataplane_ongoing(n->dataplane) > 0 &&
        now < n->ended_at + LAST_ANSWERS_MS * RS_MS)
        return;
    n->phase = DRAINED;
    n->ops.on_drained(n->arg);
}

/* ns. What is long to write is long to read: with very many processes reports come less often. */
static int64_t report_gap(const struct rs_node *n)
{
    int64_t gap = 6 * n->report_cost;

    gap = gap < REPORT_GAP_MS * RS_MS ? REPORT_GAP_MS * RS_MS : gap;
    gap = gap > REPORT_BUSY_MS * RS_MS ? REPORT_BUSY_MS * RS_MS : gap;
    return n->dirty ? gap : (n->busy ? REPORT_BUSY_MS : REPORT_EVERY_MS) * RS_MS;
}

static int64_t report_at(const struct rs_node *n)
{
    if (!n->head || rs_conn_congested(n->head)) /* it does not read what it was told */
        return INT64_MAX;
    if (n->within && n->still >= STILL_MAX && !n->dirty && !n->busy)
        return INT64_MAX;
    return n->reported_at + report_gap(n);
}

static int64_t until(int64_t deadline, int64_t now)
{
    return deadline > now ? deadline - now : 0;
}

static int64_t on_turn(struct rs_after *a)
{
    struct rs_node *n = rs_container_of(a, struct rs_node, hook);
    int64_t now = rs_clock_now(), next;

    if (rs_agent_deadline(n->agent) <= now)
        rs_agent_tick(n->agent, now);
    if (now - n->reaped_at >= REPORT_EVERY_MS * RS_MS) {
        rs_keeper_reap(n->keeper);
        n->reaped_at = now;
    }
    if (n->phase != SERVING)
        drain_step(n, now);
    if (rs_agent_sample_at(n->agent) <= now)
        rs_node_sample(n);
    if (report_at(n) <= now)
        send_report(n, now);
    next = rs_agent_deadline(n->agent);
    next = report_at(n) < next ? report_at(n) : next;
    next = rs_agent_sample_at(n->agent) < next ? rs_agent_sample_at(n->agent) : next;
    rs_helpers_tick(rs_advice_helpers(n->advice), now);
    if (rs_helpers_deadline(rs_advice_helpers(n->advice)) < next)
        next = rs_helpers_deadline(rs_advice_helpers(n->advice));
    if ((n->phase == FINISHING || (n->phase == DRAINING && n->ended_at)) && now + 10 * RS_MS < next)
        next = now + 10 * RS_MS;
    return next == INT64_MAX ? -1 : until(next, now);
}

/* --- life ---------------------------------------------------------------------------------------- */

static void on_peer(int fd, void *arg)
{
    struct rs_node *n = arg;

    rs_dataplane_accept_peer(n->dataplane, fd);
}

static int open_state(struct rs_node *n, const struct rs_node_conf *conf, struct rs_error *err)
{
    char instance[33];
    uint64_t bits[2] = {rs_node_random(NULL), rs_node_random(NULL)};
    rs_auto(rs_freep) char *zip = NULL;

    if (rs_statedir_open(&n->state, conf->state_dir, conf->alone ? "head" : "main", conf->alone,
                         err) < 0)
        return -1;
    if (rs_statedir_put(n->state, "rserve.zip", rs_pyruntime_zip, rs_pyruntime_zip_size, &zip,
                        err) < 0)
        return -1;
    snprintf(instance, sizeof(instance), "%016llx%016llx", (unsigned long long)bits[0],
             (unsigned long long)bits[1]);
    if (setenv(RS_INSTANCE_ENV, instance, 1) < 0 ||
        setenv("RSERVE_VALUES", rs_statedir_values(n->state), 1) < 0)
        return rs_error_errno(err, errno, "setenv");
    rs_launch_init(&n->launch, conf->python, zip, rs_statedir_run(n->state));
    return rs_guard_new(&n->guard, instance, err);
}

static int start_processes(struct rs_node *n, const struct rs_node_conf *conf, struct rs_error *err)
{
    struct rs_capture_conf capture = {
        .dir = rs_statedir_logs(n->state),
        .echo = conf->echo,
        .colour = conf->quiet_terminal ? 0 : -1,
    };

    if (rs_subreaper(err) < 0 || rs_capture_hub_new(&n->hub, n->loop, &capture, err) < 0)
        return -1;
    n->logs = rs_node_logs_new(n->loop, rs_capture_journal(n->hub), n->name, rs_node_send_lines, n);
    if (n->ops.on_output)
        rs_capture_hub_sink(n->hub, n->ops.on_output, n->arg);
    return rs_keeper_new(&n->keeper, n->loop, n->hub, &rs_node_keeper_ops, n, err);
}

static int start_agent(struct rs_node *n, struct rs_error *err)
{
    struct rs_agent_conf conf = {
        .node_id = n->node_id,
        .node_name = n->name,
        .resources = n->resources,
        .wall_offset_s = rs_clock_wall() - (double)rs_clock_now() / 1e9,
        .log_dir = rs_statedir_logs(n->state),
        .omp_set = getenv("OMP_NUM_THREADS") != NULL,
    };

    if (rs_agent_new(&n->agent, &conf, &rs_node_agent_ops, n, err) < 0)
        return -1;
    n->envs = rs_envs_new(n->loop, &n->launch, n->keeper, n->agent);
    n->advice = rs_advice_new(&(struct rs_helpers_conf){n->loop, n->agent, n->keeper, &n->launch},
                              n->node_id, &rs_node_advice_ops, n);
    return 0;
}

static int listen_for_peers(struct rs_node *n, const struct rs_address *at, struct rs_error *err)
{
    struct rs_address bound;
    char text[80];

    if (!at)
        return 0;
    if (rs_listener_new(&n->peers, n->loop, at, on_peer, n, err) < 0)
        return -1;
    rs_listener_address(n->peers, &bound);
    rs_address_print(&bound, text, sizeof(text));
    n->address = rs_strdup(text);
    return 0;
}

static void on_owner_gone(void *arg)
{
    struct rs_node *n = arg;

    if (n->ops.on_owner_gone)
        n->ops.on_owner_gone(n->arg);
}

static int take_drivers(struct rs_node *n, const struct rs_node_conf *conf, struct rs_error *err)
{
    const struct rs_drivers_conf drivers = {
        .node_id = n->node_id,
        .values_dir = rs_statedir_values(n->state),
        .run_dir = conf->drivers ? rs_statedir_run(n->state) : NULL,
        .on_owner_gone = on_owner_gone,
        .arg = n,
    };

    n->values = rs_values_new(rs_statedir_values(n->state), &rs_node_values_ops, n);
    return rs_drivers_new(&n->drivers, n->loop, n->dataplane, &drivers, err);
}

int rs_node_new(struct rs_node **ret, struct rs_loop *loop, const struct rs_node_conf *conf,
                struct rs_metrics *metrics, const struct rs_node_ops *ops, void *arg,
                struct rs_error *err)
{
    rs_auto(rs_node_freep) struct rs_node *n = rs_alloc(sizeof(*n));

    n->loop = loop;
    n->metrics = metrics;
    n->ops = *ops;
    n->arg = arg;
    n->node_id = rs_strdup(conf->node_id);
    n->name = rs_strdup(conf->name);
    n->resources = json_deep_copy(conf->resources);
    n->labels = conf->labels ? json_deep_copy(conf->labels) : json_object();
    n->grace_s = 20;
    n->probes = (struct rs_probes){.loop = loop, .on_probed = rs_node_on_probed, .arg = n};
    rs_list_init(&n->hook.link);
    rs_oom_init(&n->oom, "");
    if (open_state(n, conf, err) < 0 || start_processes(n, conf, err) < 0 ||
        start_agent(n, err) < 0 ||
        rs_dataplane_new(&n->dataplane, loop, &conf->ingress, metrics, &rs_node_dataplane_ops, n,
                         err) < 0 ||
        take_drivers(n, conf, err) < 0 || listen_for_peers(n, conf->peers, err) < 0)
        return -1;
    rs_advice_dataplane(n->advice, n->dataplane);
    n->hook.fn = on_turn;
    rs_after_add(loop, &n->hook);
    *ret = rs_steal(n);
    return 0;
}

void rs_node_free(struct rs_node *n)
{
    if (!n)
        return;
    n->closing = true;
    rs_after_remove(&n->hook);
    rs_listener_free(n->peers);
    rs_drivers_free(n->drivers);
    rs_values_free(n->values);
    rs_conn_free(n->head);
    rs_asks_fini(&n->asks);
    rs_probes_fini(&n->probes);
    for (size_t i = 0; i < rs_map_slots(&n->zygotes); i++) {
        struct rs_node_zygote *z = rs_map_at(&n->zygotes, i, NULL);

        if (z)
            rs_node_zygote_free(z);
    }
    for (size_t i = 0; i < rs_map_slots(&n->lines); i++)
        rs_node_line_free(rs_map_at(&n->lines, i, NULL));
    rs_map_fini(&n->lines);
    rs_map_fini(&n->zygotes);
    rs_envs_free(n->envs);
    rs_advice_free(n->advice);
    rs_keeper_free(n->keeper);
    rs_dataplane_free(n->dataplane);
    rs_agent_free(n->agent);
    rs_node_logs_free(n->logs);
    rs_oom_fini(&n->oom);
    rs_capture_hub_free(n->hub);
    rs_guard_free(n->guard);
    rs_launch_fini(&n->launch);
    rs_statedir_free(n->state);
    json_decref(n->resources);
    json_decref(n->labels);
    free(n->node_id);
    free(n->name);
    free(n->address);
    free(n);
}

int rs_node_owned_by(struct rs_node *n, int fd, struct rs_error *err)
{
    return rs_drivers_own(n->drivers, fd, err);
}

int rs_node_listen(struct rs_node *n, const struct rs_ingress_conf *conf, struct rs_error *err)
{
    return rs_dataplane_listen(n->dataplane, conf, err);
}

void rs_node_reopen_log(struct rs_node *n)
{
    rs_dataplane_reopen_log(n->dataplane);
}

uint16_t rs_node_port(const struct rs_node *n)
{
    return rs_dataplane_port(n->dataplane);
}

const char *rs_node_driver_socket(const struct rs_node *n)
{
    return rs_drivers_path(n->drivers);
}

const char *rs_node_state_dir(const struct rs_node *n)
{
    return rs_statedir_path(n->state);
}

const char *rs_node_values_dir(const struct rs_node *n)
{
    return rs_statedir_values(n->state);
}

const char *rs_node_log_dir(const struct rs_node *n)
{
    return rs_statedir_logs(n->state);
}

void rs_node_drain(struct rs_node *n)
{
    if (n->phase != SERVING)
        return;
    n->phase = FINISHING;
    n->finish_by = rs_clock_now() + (int64_t)(n->grace_s * 1e9);
    rs_dataplane_stop_accepting(n->dataplane);
}

void rs_node_kill(struct rs_node *n)
{
    if (n->phase == DRAINED)
        return;
    n->phase = KILLING;
    rs_helpers_stop(rs_advice_helpers(n->advice));
    rs_agent_kill_all(n->agent, rs_clock_now());
}

unsigned rs_node_ongoing(const struct rs_node *n)
{
    return rs_dataplane_ongoing(n->dataplane);
}

char *rs_node_waits_for(const struct rs_node *n)
{
    unsigned ongoing = rs_node_ongoing(n);

    if (n->phase <= FINISHING && ongoing)
        return rs_asprintf("%u request%s", ongoing, ongoing == 1 ? "" : "s");
    return rs_agent_waits_for(n->agent);
}
