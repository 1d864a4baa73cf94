/* How the replicas of a node do: joins figures, questions and the ends of processes to health.h, and acts
 * on what it finds. agent-replace.c starts the new one before an old one goes.
 */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "sched/supervise/spawn.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define SAMPLE_EVERY (500 * RS_MS)
#define ASK_AFTER RS_SEC     /* nothing moves for so long: is it there at all? */
#define ASK_GAP (2 * RS_SEC) /* between such questions */

static struct rs_ag_health *health_of(struct rs_ag_replica *r)
{
    if (!r->health)
        r->health = rs_alloc(sizeof(*r->health));
    return r->health;
}

void rs_ag_health_free(struct rs_ag_replica *r)
{
    free(r->health);
    json_decref(r->end);
    r->health = NULL;
    r->end = NULL;
}

void rs_ag_health_forget(struct rs_ag_deployment *d)
{
    free(d->took);
    d->took = NULL;
    d->window_at = d->stuck_at_least = 0;
}

/* --- who may be judged --------------------------------------------------------------------------- */

static bool judged(const struct rs_ag_deployment *d)
{
    return !d->gone && !rs_ag_is_core(d) && !d->agent->draining;
}

/* Those that take requests, and how many of them are held to be ill: they, and those that had to go for
 * it and are not gone yet. */
static unsigned count_up(struct rs_ag_deployment *d, unsigned *ejected, unsigned *full)
{
    unsigned up = 0;

    *ejected = *full = 0;
    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);
        bool spared = r->health && r->health->spare;

        up += rs_ag_is_up(r);
        *full += rs_ag_is_up(r) && !spared;
        *ejected += r->state != RS_REPLICA_STOPPED && (spared || r->ejected);
    }
    return up;
}

/* --- what is found ------------------------------------------------------------------------------- */

/* Its requests go to others, as far as there are any. */
static void weigh(struct rs_ag_replica *r, unsigned spare)
{
    const struct rs_agent *a = r->deployment->agent;
    struct rs_ag_health *h = health_of(r);

    if (h->spare == spare)
        return;
    h->spare = spare;
    if (a->ops.weigh)
        a->ops.weigh(r->id, 100 - spare, a->arg);
}

void rs_ag_look(struct rs_ag_replica *r)
{
    const struct rs_agent *a = r->deployment->agent;
    struct rs_agent_look seen = {0};

    if (!r->pid || !a->ops.look || !a->ops.look(r->pid, &seen, a->arg))
        return;
    r->process = seen.state;
    r->memory = seen.memory;
}

static void take_finding(struct rs_ag_replica *r, const struct rs_health_finding *f)
{
    struct rs_ag_health *h = health_of(r);
    bool news = h->found.what != f->what || h->found.action != f->action;

    h->found = *f;
    if (!news)
        return;
    if (f->what != RS_HEALTH_WELL)
        rs_ag_look(r);
    rs_ag_changed(r->deployment->agent);
}

static char *text_of(const struct rs_ag_replica *r)
{
    struct rs_buf out = {0};

    rs_health_text(&out, &r->health->found);
    if (r->process == 'T')
        rs_buf_puts(&out, "; its process is stopped (state T)");
    return rs_buf_steal(&out);
}

/* Nothing else is to be waited for: it goes, and another one starts. */
static void end(struct rs_ag_replica *r, int64_t now)
{
    rs_auto(rs_freep) char *text = text_of(r);
    bool kill = r->health->found.action == RS_HEALTH_KILL;

    r->ejected = true;
    rs_ag_count_death(r, text, now);
    if (kill)
        rs_ag_kill(r, text, now);
    else
        rs_ag_retire(r, text, now);
}

/* --- not answering ------------------------------------------------------------------------------- */

static bool may_be_silent(const struct rs_ag_replica *r)
{
    return rs_ag_is_up(r) && r->kind != RS_KIND_HTTP && judged(r->deployment);
}

void rs_ag_health_asked(struct rs_ag_replica *r, int64_t now)
{
    r->last_asked = now;
    if (!r->silent_since)
        r->silent_since = now;
}

void rs_ag_health_heard(struct rs_ag_replica *r, int64_t now)
{
    r->silent_since = r->asked_at ? now : 0;
    if (r->health && r->health->found.what == RS_HEALTH_SILENT) {
        take_finding(r, &(struct rs_health_finding){.what = RS_HEALTH_WELL});
        weigh(r, 0);
    }
}

static bool silent(struct rs_ag_replica *r, int64_t now, struct rs_health_finding *f)
{
    return may_be_silent(r) && r->silent_since &&
           rs_silent_judge(&r->deployment->conf->health, r->period + r->timeout, r->silent_since,
                           now, f);
}

int64_t rs_ag_health_deadline(const struct rs_ag_replica *r)
{
    if (!may_be_silent(r) || !r->silent_since)
        return 0;
    return rs_silent_deadline(&r->deployment->conf->health, r->period + r->timeout, r->silent_since,
                              r->silent_now);
}

/* Others are there to take its requests. */
static bool can_spare(struct rs_ag_replica *r)
{
    unsigned ejected, full;

    (void)count_up(r->deployment, &ejected, &full);
    return full > !(r->health && r->health->spare);
}

void rs_ag_health_tick(struct rs_ag_replica *r, int64_t now)
{
    struct rs_health_finding f;

    r->silent_now = now;
    if (!silent(r, now, &f))
        return;
    take_finding(r, &f);
    if (f.action == RS_HEALTH_KILL)
        end(r, now);
    else if (can_spare(r))
        weigh(r, 100);
}

/* --- samples ------------------------------------------------------------------------------------- */

static void take_tally(struct rs_ag_replica *r, const struct rs_health_sample *x)
{
    struct rs_ag_deployment *d = r->deployment;
    struct rs_ag_health *h = r->health;

    if (!d->took)
        d->took = rs_alloc(sizeof(*d->took));
    for (unsigned i = 0; i < RS_TALLY_BUCKETS; i++) {
        d->took->bucket[i] += x->took[i] - h->took.bucket[i];
        h->took.bucket[i] = x->took[i];
    }
}

void rs_agent_sample(struct rs_agent *a, const char *replica_id, const struct rs_health_sample *x,
                     int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);
    struct rs_ag_health *h;

    if (!r || !rs_ag_is_up(r) || rs_ag_is_core(r->deployment))
        return;
    a->busy |= x->in_flight > 0;
    if (!r->health && !x->in_flight && !x->done)
        return;
    h = health_of(r);
    a->busy |= x->moved != h->moved;
    if (x->moved != h->moved)
        rs_ag_health_heard(r, now);
    h->moved = x->moved;
    if (r->state == RS_REPLICA_RUNNING)
        rs_stall_feed(&h->stall, x, now);
    else /* reconfigure may take long, and requests wait for it */
        h->stall = (struct rs_stall){0};
    h->waiting = x->in_flight > x->open ? x->in_flight - x->open : 0;
    if (x->done != h->requests && x->took)
        take_tally(r, x);
    h->requests = x->done;
    /* Nothing comes of it: a question tells whether it is there at all. */
    if (h->stall.time >= ASK_AFTER && r->kind != RS_KIND_HTTP && !r->asked_at &&
        now - r->last_asked >= ASK_GAP && r->check_at > now)
        r->check_at = now;
}

/* --- stuck --------------------------------------------------------------------------------------- */

/* What its requests may take: then they are given up. 0: as long as they like. */
static int64_t request_timeout(const struct rs_ag_deployment *d)
{
    const struct rs_target *t = d->agent->target;

    if (d->conf->request_timeout > 0)
        return d->conf->request_timeout;
    return t && t->http.request_timeout_s > 0 ? (int64_t)(t->http.request_timeout_s * 1e9) : 0;
}

static bool stuck(struct rs_ag_replica *r, struct rs_health_finding *f)
{
    struct rs_ag_deployment *d = r->deployment;
    const struct rs_deployment_conf *c = d->conf;
    int64_t usual = 0, limit, at_least = d->stuck_at_least;

    if (!r->health || !d->took || r->health->stall.time < SAMPLE_EVERY)
        return false;
    if (request_timeout(d) > at_least)
        at_least = request_timeout(d);
    limit = rs_stall_limit(&c->health, &r->health->took, d->took, at_least, &usual);
    return rs_stall_judge(&r->health->stall, limit, usual, r->health->waiting, f);
}

/* --- slow ---------------------------------------------------------------------------------------- */

static void end_window(struct rs_ag_replica *r, struct rs_slow_one *one)
{
    struct rs_ag_health *h = r->health;
    struct rs_tally window = {0};
    int at;

    (void)rs_tally_since(&h->took, &h->window, &window);
    h->window = h->took;
    at = rs_tally_quantile(&window, 0.5);
    *one = (struct rs_slow_one){.state = &h->slow,
                                .count = rs_tally_timed(&window),
                                .median = at < 0 ? 0 : (double)rs_tally_upper((unsigned)at) / 1e9};
}

/* Its replicas do the same: none has models that others have not, and nobody but the queue says who gets
 * what. While a version rolls each is compared with those of its own. */
static bool comparable(const struct rs_ag_replica *r)
{
    const struct rs_ag_deployment *d = r->deployment;

    return rs_ag_is_up(r) && r->health && !d->multiplexed && !rs_ag_router(d->conf) &&
           strcmp(r->version, d->version) == 0;
}

void rs_agent_tells_models(struct rs_agent *a, const char *replica_id)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);

    if (r)
        r->deployment->multiplexed = true;
}

/* A window of all its replicas is over: which of them are out of the range of the others? */
static void judge_slow(struct rs_ag_deployment *d, unsigned spare, int64_t now)
{
    size_t n = 0, i = 0;
    rs_auto(rs_freep) struct rs_slow_one *all = NULL;

    rs_list_for_each (it, &d->list)
        n++;
    all = rs_alloc((n + 1) * sizeof(*all));
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (comparable(r))
            end_window(r, &all[i++]);
        else if (r->health)
            r->health->slow_found = false;
    }
    rs_slow_judge(&d->conf->health, all, i, spare, now);
    i = 0;
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (!comparable(r))
            continue;
        r->health->slow_found = all[i].finding;
        r->health->slow_finding = all[i++].found;
    }
}

/* --- all together -------------------------------------------------------------------------------- */

/* Failing checks are counted elsewhere (agent-replica.c); here they are told. */
static bool failing(const struct rs_ag_replica *r, struct rs_health_finding *f)
{
    if (!r->sick)
        return false;
    *f = (struct rs_health_finding){.what = RS_HEALTH_CHECK_FAILED,
                                    .since = r->sick_since,
                                    .value = r->sick,
                                    .limit = RS_AG_UNHEALTHY_AFTER,
                                    .unit = "failures"};
    return true;
}

static struct rs_health_finding find(struct rs_ag_replica *r, int64_t now)
{
    struct rs_health_finding f;

    if (silent(r, now, &f) || stuck(r, &f) || failing(r, &f))
        return f;
    if (r->health && r->health->slow_found)
        return r->health->slow_finding;
    return (struct rs_health_finding){.what = RS_HEALTH_WELL};
}

static void judge(struct rs_ag_replica *r, unsigned *left, int64_t now)
{
    struct rs_ag_deployment *d = r->deployment;
    struct rs_health_finding f = find(r, now);
    bool spared = r->health && r->health->spare;
    unsigned spare = f.what == RS_HEALTH_SLOW ? 100 - RS_SLOW_SHARE : 100;

    if (!r->health && f.what == RS_HEALTH_WELL)
        return;
    /* However many are out of the range: most of them must work. */
    if (f.action > RS_HEALTH_TELL && f.what != RS_HEALTH_SILENT && !spared) {
        if (*left == 0)
            f.action = RS_HEALTH_TELL;
        else
            --*left;
    }
    take_finding(r, &f);
    if (f.action == RS_HEALTH_KILL || f.action == RS_HEALTH_END) {
        if (f.what == RS_HEALTH_STUCK) /* who was wrong once is less sure of it */
            d->stuck_at_least = 2 * (int64_t)(f.value * 1e9);
        end(r, now);
        return;
    }
    weigh(r, f.action >= RS_HEALTH_SPARE && can_spare(r) ? spare : 0);
    if (f.action == RS_HEALTH_REPLACE)
        rs_ag_replace(r, &f, now);
}

static void judge_all(struct rs_ag_deployment *d, int64_t now)
{
    unsigned ejected, full, up = count_up(d, &ejected, &full);
    unsigned most = rs_eject_most(&d->conf->health, up), left = most > ejected ? most - ejected : 0;

    if (!d->window_at)
        d->window_at = now;
    if (now - d->window_at >= d->conf->health.slow_window) {
        judge_slow(d, left, now);
        d->window_at = now;
    }
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (rs_ag_is_up(r))
            judge(r, &left, now);
    }
}

void rs_agent_sampled(struct rs_agent *a, int64_t now)
{
    a->sample_at = a->busy ? now + SAMPLE_EVERY : INT64_MAX;
    a->busy = false;
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d && judged(d))
            judge_all(d, now);
    }
    rs_ag_reconcile(a, now);
}

int64_t rs_agent_sample_at(const struct rs_agent *a)
{
    return a->sample_at;
}

void rs_agent_loaded(struct rs_agent *a, int64_t now)
{
    if (a->sample_at > now + SAMPLE_EVERY)
        a->sample_at = now + SAMPLE_EVERY;
}

bool rs_ag_health_failed(struct rs_ag_replica *r, const char *why, int64_t now, char **text)
{
    struct rs_health_finding f;
    rs_auto(rs_freep) char *said = NULL;
    bool is_silent = silent(r, now, &f) && now - r->silent_since >= r->timeout;

    if (!is_silent && !failing(r, &f))
        return false;
    f.action = is_silent ? RS_HEALTH_KILL : RS_HEALTH_END;
    r->ejected = true;
    take_finding(r, &f);
    said = is_silent ? text_of(r) : rs_strdup(why);
    *text =
        rs_asprintf("health check failed %u times: %s%s", r->sick, said,
                    !is_silent && r->process == 'T' ? "; its process is stopped (state T)" : "");
    return is_silent;
}

/* --- the end of a process ------------------------------------------------------------------------ */

/* It was killed, and not by the agent: is there anything that says who did it? */
static void blame(struct rs_ag_replica *r, json_t *j)
{
    const struct rs_agent *a = r->deployment->agent;
    struct rs_agent_oom oom = {0};

    if (!a->ops.oom || !a->ops.oom(&oom, a->arg))
        return;
    json_object_set_new(j, "condition", json_string("out_of_memory"));
    json_object_set_new(j, "evidence", json_string(oom.evidence));
    json_object_set_new(j, "oom_kills", json_integer((json_int_t)oom.kills));
    json_object_set_new(j, "certain", json_boolean(oom.certain));
    if (r->memory)
        json_object_set_new(j, "memory", json_integer((json_int_t)r->memory));
    rs_ag_set(&r->message,
              rs_asprintf("%s: out of memory: %s", r->message ? r->message : "its process ended",
                          oom.evidence));
}

void rs_ag_health_ended(struct rs_ag_replica *r, int status, const char *output, int64_t now)
{
    bool ours = r->kill_stage > 0 || r->stop_by;
    json_t *j;

    if (r->outgoing)
        j = rs_health_json(&r->going, r->deployment->agent->wall_offset_s);
    else if (r->health && r->health->found.what != RS_HEALTH_WELL)
        j = rs_health_json(&r->health->found, r->deployment->agent->wall_offset_s);
    else
        j = json_pack("{s:s}", "condition", "dead");
    json_object_set_new(j, "ended_s",
                        json_real((double)now / 1e9 + r->deployment->agent->wall_offset_s));
    if (WIFEXITED(status))
        json_object_set_new(j, "exit_code", json_integer(WEXITSTATUS(status)));
    if (WIFSIGNALED(status))
        json_object_set_new(j, "signal", json_integer(WTERMSIG(status)));
    json_object_set_new(j, "asked", json_boolean(ours && !r->cut));
    if (output && *output)
        json_object_set_new(j, "stderr", json_string(output));
    /* One whose connection closed was told to end since, but may have been dead by then. */
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && (r->kill_stage < 2 || r->cut))
        blame(r, j);
    json_decref(r->end);
    r->end = j;
}

json_t *rs_ag_health_json(const struct rs_ag_replica *r)
{
    const struct rs_ag_health *h = r->health;
    json_t *j;

    if (r->end)
        return json_incref(r->end);
    if (r->outgoing)
        j = rs_health_json(&r->going, r->deployment->agent->wall_offset_s);
    else if (h && h->found.what != RS_HEALTH_WELL)
        j = rs_health_json(&h->found, r->deployment->agent->wall_offset_s);
    else
        return NULL;
    if (r->process)
        json_object_set_new(j, "process_state", json_stringn(&r->process, 1));
    if (r->memory)
        json_object_set_new(j, "memory", json_integer((json_int_t)r->memory));
    if (h && h->spare)
        json_object_set_new(j, "share_percent", json_integer(100 - h->spare));
    return j;
}
