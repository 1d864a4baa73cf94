/* The life of runs and tasks. What is to be done next waits in `todo`, so that a long chain of steps
 * that need no call is a loop and no recursion. */
#include "core/graph/flow-internal.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPARE_MAX = 1024 };
#define SAVED_MAX 10.0 /* retries */

struct rs_flow_info *rs_flow_info_new(void)
{
    struct rs_flow_info *i = rs_alloc(sizeof(*i));

    i->refs = 1;
    return i;
}

void rs_flow_info_unref(struct rs_flow_info *i)
{
    if (!i || --i->refs)
        return;
    rs_buf_fini(&i->text);
    free(i);
}

struct rs_flow *rs_flow_new(struct rs_plan *plan, const struct rs_hash_key *key,
                            rs_flow_observe *observe, void *arg)
{
    struct rs_flow *f = rs_alloc(sizeof(*f));

    f->plan = plan;
    f->key = *key;
    f->observe = observe;
    f->arg = arg;
    f->tokens = SAVED_MAX;
    rs_list_init(&f->runs);
    rs_list_init(&f->dead_runs);
    rs_list_init(&f->spare_runs);
    rs_list_init(&f->dead);
    rs_list_init(&f->spare);
    rs_list_init(&f->todo);
    f->shadows = rs_alloc(plan->count * sizeof(*f->shadows));
    f->caches = rs_alloc((plan->n_caches + 1) * sizeof(*f->caches));
    for (unsigned i = 0; i < plan->count; i++) {
        if (plan->steps[i]->cache.ttl)
            rs_cache_init(&f->caches[plan->steps[i]->cache.index], plan->steps[i]->cache.max_bytes);
    }
    return f;
}

static void recycle(struct rs_flow *f)
{
    struct rs_list *it;

    while ((it = rs_list_pop_front(&f->dead))) {
        struct rs_task *t = rs_container_of(it, struct rs_task, link);

        if (f->n_spare >= SPARE_MAX) {
            free(t);
            continue;
        }
        f->n_spare++;
        rs_list_push_front(&f->spare, &t->link);
    }
    while ((it = rs_list_pop_front(&f->dead_runs))) {
        struct rs_run *run = rs_container_of(it, struct rs_run, link);

        rs_flow_info_unref(run->info);
        if (f->n_spare_runs >= SPARE_MAX) {
            free(run);
            continue;
        }
        f->n_spare_runs++;
        rs_list_push_front(&f->spare_runs, &run->link);
    }
}

void rs_flow_free(struct rs_flow *f)
{
    struct rs_list *it;

    if (!f)
        return;
    assert(rs_list_empty(&f->runs) && !f->count);
    recycle(f);
    while ((it = rs_list_pop_front(&f->spare)))
        free(rs_container_of(it, struct rs_task, link));
    while ((it = rs_list_pop_front(&f->spare_runs)))
        free(rs_container_of(it, struct rs_run, link));
    for (unsigned i = 0; i < f->plan->n_caches; i++)
        rs_cache_fini(&f->caches[i]);
    rs_value_unref(f->handed);
    rs_plan_free(f->plan);
    free(f->caches);
    free(f->shadows);
    free(f->actions);
    free(f);
}

const struct rs_plan *rs_flow_plan(const struct rs_flow *f)
{
    return f->plan;
}

unsigned rs_flow_runs(const struct rs_flow *f)
{
    return f->n_runs;
}

bool rs_flow_idle(const struct rs_flow *f)
{
    return rs_list_empty(&f->runs) && f->first == f->count;
}

uint64_t rs_flow_cached(const struct rs_flow *f)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < f->plan->n_caches; i++)
        sum += f->caches[i].bytes;
    return sum;
}

void *rs_run_data(const struct rs_run *run)
{
    return run->data;
}

bool rs_run_is_shadow(const struct rs_run *run)
{
    return run->shadow_of != NULL;
}

const struct rs_flow_info *rs_run_info(const struct rs_run *run)
{
    return run->info;
}

const struct rs_step *rs_task_step(const struct rs_task *t)
{
    return t->step;
}

struct rs_run *rs_task_run(const struct rs_task *t)
{
    return t->run;
}

void **rs_task_slot(struct rs_task *t)
{
    return &t->slot;
}

const char *rs_task_label(const struct rs_task *t, char *buf, size_t size)
{
    if (t->step->kind == RS_STEP_CALL)
        snprintf(buf, size, "stage '%.60s' (deployment '%.60s')", t->step->name,
                 t->step->deployment);
    else
        snprintf(buf, size, "stage '%.60s'", t->step->name);
    return buf;
}

/* --- actions ----------------------------------------------------------------------------------- */

void rs_flow_act(struct rs_flow *f, struct rs_flow_action a)
{
    if (f->first && f->first == f->count)
        f->first = f->count = 0;
    f->actions = rs_grow(f->actions, &f->cap, f->count + 1, sizeof(*f->actions));
    f->actions[f->count++] = a;
}

/* What an event took back meanwhile is not told. */
static bool is_stale(const struct rs_flow_action *a)
{
    if (a->what == RS_DO_ANSWER)
        return a->run->cancelled;
    return a->what == RS_DO_CALL && a->task->state != RS_TASK_CALLING;
}

bool rs_flow_next(struct rs_flow *f, struct rs_flow_action *ret)
{
    rs_value_unref(f->handed);
    f->handed = NULL;
    while (f->first < f->count) {
        struct rs_flow_action a = f->actions[f->first++];

        if (is_stale(&a)) {
            rs_value_unref(a.value);
            continue;
        }
        f->handed = a.value;
        *ret = a;
        return true;
    }
    f->first = f->count = 0;
    recycle(f);
    return false;
}

/* --- tasks ------------------------------------------------------------------------------------- */

struct rs_task *rs_task_new(struct rs_run *run, const struct rs_step *s, struct rs_task *parent,
                            size_t place, struct rs_value *input)
{
    struct rs_flow *f = run->flow;
    struct rs_list *it = rs_list_pop_front(&f->spare);
    struct rs_task *t = it ? rs_container_of(it, struct rs_task, link) : rs_alloc(sizeof(*t));

    f->n_spare -= it != NULL;
    *t = (struct rs_task){.run = run, .step = s, .parent = parent, .place = place};
    rs_list_init(&t->link);
    rs_list_init(&t->todo);
    rs_list_init(&t->share);
    rs_list_init(&t->kids);
    t->input = rs_value_ref(input);
    if (parent) {
        parent->open++;
        rs_list_push_back(&parent->kids, &t->link);
    }
    rs_list_push_back(&f->todo, &t->todo);
    return t;
}

void rs_task_timer(struct rs_task *t, int64_t at)
{
    if (!at && !t->timed)
        return;
    t->due = at;
    t->timed = at != 0;
    rs_flow_act(t->run->flow,
                (struct rs_flow_action){.what = RS_DO_TIMER, .run = t->run, .task = t, .at = at});
}

void rs_task_end(struct rs_task *t, enum rs_outcome o, struct rs_value *value)
{
    assert(t->state < RS_TASK_ENDED);
    rs_task_timer(t, 0);
    t->state = RS_TASK_ENDED;
    t->outcome = o;
    t->output = value;
    rs_list_push_back(&t->run->flow->todo, &t->todo);
}

/* Nothing of it is needed any more. */
static void release(struct rs_task *t)
{
    t->state = RS_TASK_GONE;
    rs_list_remove(&t->todo);
    if (t->parent)
        t->parent->open--;
    for (size_t i = 0; i < t->n_outputs; i++)
        rs_value_unref(t->outputs[i]);
    free(t->outputs);
    t->outputs = NULL;
    t->n_outputs = 0;
    rs_value_unref(t->input);
    rs_value_unref(t->output);
    t->input = t->output = NULL;
    rs_list_push_back(&t->run->flow->dead, &t->link);
}

void rs_task_abort_kids(struct rs_task *t, int64_t now)
{
    while (!rs_list_empty(&t->kids))
        rs_task_abort(rs_container_of(t->kids.next, struct rs_task, link), now);
}

/* The depth is that of the plan. */
void rs_task_abort(struct rs_task *t, int64_t now)
{
    rs_task_abort_kids(t, now);
    rs_task_timer(t, 0);
    if (t->state == RS_TASK_CALLING || t->state == RS_TASK_STREAMING)
        rs_flow_act(t->run->flow,
                    (struct rs_flow_action){.what = RS_DO_CANCEL, .run = t->run, .task = t});
    if (t->state == RS_TASK_ENDED)
        rs_task_to_cache(t, now);
    else
        rs_task_leave_cache(t);
    release(t);
}

/* --- runs -------------------------------------------------------------------------------------- */

struct rs_run *rs_run_new(struct rs_flow *f, struct rs_flow_info *info, const struct rs_step *root,
                          struct rs_value *input)
{
    struct rs_list *it = rs_list_pop_front(&f->spare_runs);
    struct rs_run *run = it ? rs_container_of(it, struct rs_run, link) : rs_alloc(sizeof(*run));

    f->n_spare_runs -= it != NULL;
    *run = (struct rs_run){.flow = f, .info = info};
    info->refs++;
    rs_list_init(&run->link);
    rs_list_push_back(&f->runs, &run->link);
    run->root = rs_task_new(run, root, NULL, 0, input);
    return run;
}

static void run_over(struct rs_run *run)
{
    struct rs_flow *f = run->flow;

    run->ended = true;
    run->root = NULL;
    if (run->shadow_of)
        f->shadows[run->shadow_of->index]--;
    else
        f->n_runs--;
    rs_list_push_back(&f->dead_runs, &run->link);
}

static void root_ended(struct rs_task *t)
{
    struct rs_run *run = t->run;

    if (!run->streamed && !run->shadow_of)
        rs_flow_act(run->flow, (struct rs_flow_action){.what = RS_DO_ANSWER,
                                                       .run = run,
                                                       .value = rs_value_ref(t->output)});
    run_over(run);
}

static void ended(struct rs_flow *f, struct rs_task *t, int64_t now)
{
    struct rs_task *parent = t->parent;

    f->observe(t->step, RS_FLOW_ENDED, t->outcome, now - t->started, f->arg);
    rs_task_to_cache(t, now);
    rs_task_abort_kids(t, now); /* those whose answers came too late to count */
    rs_list_remove(&t->link);
    if (!parent)
        root_ended(t);
    else if (t->run->streamed)
        rs_task_end(parent, t->outcome, NULL);
    else if (parent->state == RS_TASK_WORKING)
        rs_task_kid_ended(parent, t, now);
    release(t);
}

/* A copy of the request goes another way, and what comes of it matters to nobody. */
static void cast_shadow(struct rs_flow *f, struct rs_task *t, int64_t now)
{
    const struct rs_step *s = t->step;
    struct rs_run *run;

    if (rs_flow_lot(t->run->info->id, t->run->info->id_len, s->name) >= s->shadow.share)
        return;
    if (f->shadows[s->index] >= s->shadow.limit) {
        f->observe(s, RS_FLOW_DROPPED, RS_OUTCOME_OVERLOAD, 0, f->arg);
        return;
    }
    f->shadows[s->index]++;
    run = rs_run_new(f, t->run->info, s->shadow.to, t->input);
    run->shadow_of = s;
    run->deadline = t->run->deadline ? t->run->deadline : now + INT64_C(60000000000);
}

static void begin(struct rs_flow *f, struct rs_task *t, int64_t now)
{
    const struct rs_run *run = t->run;

    t->started = now;
    if (t->step->shadow.to)
        cast_shadow(f, t, now);
    if (t->step->timeout)
        rs_task_timer(t, now + t->step->timeout);
    if (!t->parent && run->shadow_of && (!t->due || run->deadline < t->due))
        rs_task_timer(t, run->deadline);
    if (t->step->cache.ttl && rs_task_from_cache(t, now))
        return;
    rs_task_execute(t, now);
}

void rs_flow_pump(struct rs_flow *f, int64_t now)
{
    struct rs_list *it;

    if (f->pumping)
        return;
    f->pumping = true;
    while ((it = rs_list_pop_front(&f->todo))) {
        struct rs_task *t = rs_container_of(it, struct rs_task, todo);

        if (t->state == RS_TASK_ENDED)
            ended(f, t, now);
        else if (t->state == RS_TASK_NEW)
            begin(f, t, now);
        else
            rs_task_execute(t, now); /* it waited for somebody who gave up */
    }
    f->pumping = false;
}

/* --- events ------------------------------------------------------------------------------------ */

struct rs_run *rs_flow_start(struct rs_flow *f, struct rs_flow_info *info, struct rs_value *input,
                             int64_t deadline, void *data, int64_t now)
{
    struct rs_run *run = rs_run_new(f, info, f->plan->steps[0], input);

    rs_flow_info_unref(info); /* the run has its own */
    rs_value_unref(input);
    run->data = data;
    run->deadline = deadline;
    if (f->n_runs++ >= f->plan->max_ongoing) {
        run->root->started = now;
        rs_list_remove(&run->root->todo);
        rs_task_end(run->root, RS_OUTCOME_OVERLOAD,
                    rs_value_line(503,
                                  "the graph works on %u requests already "
                                  "(max_ongoing_requests)",
                                  f->plan->max_ongoing));
    }
    rs_flow_pump(f, now);
    return run;
}

void rs_flow_cancel(struct rs_flow *f, struct rs_run *run, int64_t now)
{
    run->cancelled = true;
    if (run->ended)
        return;
    rs_task_abort(run->root, now);
    run_over(run);
    rs_flow_pump(f, now); /* somebody may have waited for it */
}

void rs_flow_close(struct rs_flow *f, int64_t now)
{
    while (!rs_list_empty(&f->runs))
        rs_flow_cancel(f, rs_container_of(f->runs.next, struct rs_run, link), now);
}

void rs_flow_answered(struct rs_flow *f, struct rs_task *t, struct rs_value *value, int64_t now)
{
    value->from = t->step->name;
    if (t->state != RS_TASK_CALLING) {
        rs_value_unref(value);
        return;
    }
    t->state = RS_TASK_WORKING;
    rs_task_judge(t, RS_OUTCOME_OK, value, now);
    rs_flow_pump(f, now);
}

void rs_flow_failed(struct rs_flow *f, struct rs_task *t, enum rs_outcome o, const char *why,
                    unsigned later, int64_t now)
{
    static const unsigned status[RS_OUTCOME_COUNT] = {502, 502, 504, 503, 502};
    struct rs_value *v;
    char label[192], seconds[16];

    if (t->state != RS_TASK_CALLING)
        return;
    t->state = RS_TASK_WORKING;
    v = rs_value_line(status[o], "%s: %s", rs_task_label(t, label, sizeof(label)),
                      why ? why : "it failed");
    if (later) {
        snprintf(seconds, sizeof(seconds), "%u", later);
        rs_value_put_header(v, "retry-after", seconds);
    }
    rs_task_judge(t, o == RS_OUTCOME_OK ? RS_OUTCOME_ERROR : o, v, now);
    rs_flow_pump(f, now);
}

bool rs_flow_begun(struct rs_flow *f, struct rs_task *t)
{
    (void)f;
    if (t->state != RS_TASK_CALLING || !t->step->tail || t->run->shadow_of)
        return false;
    t->state = RS_TASK_STREAMING;
    t->run->streamed = true;
    for (struct rs_task *p = t; p; p = p->parent)
        rs_task_timer(p, 0); /* what has begun has its time */
    return true;
}

void rs_flow_streamed(struct rs_flow *f, struct rs_task *t, bool ok, int64_t now)
{
    if (t->state != RS_TASK_STREAMING)
        return;
    t->state = RS_TASK_WORKING;
    rs_task_end(t, ok ? RS_OUTCOME_OK : RS_OUTCOME_ERROR, NULL);
    rs_flow_pump(f, now);
}

void rs_flow_due(struct rs_flow *f, struct rs_task *t, int64_t now)
{
    char label[192];

    if (!t->timed || t->due > now || t->state >= RS_TASK_ENDED)
        return;
    t->timed = false;
    t->due = 0;
    if (t->state == RS_TASK_PAUSED) {
        rs_task_call(t, now);
    } else {
        struct rs_value *v =
            rs_value_line(504, "%s: no answer within %g s", rs_task_label(t, label, sizeof(label)),
                          (double)(t->step->timeout ? t->step->timeout : now - t->started) / 1e9);

        rs_task_abort_kids(t, now);
        if (t->state == RS_TASK_CALLING)
            rs_flow_act(f, (struct rs_flow_action){.what = RS_DO_CANCEL, .run = t->run, .task = t});
        if (t->state == RS_TASK_WAITING)
            rs_task_leave_cache(t);
        rs_list_remove(&t->todo);
        t->state = RS_TASK_WORKING;
        rs_task_judge(t, RS_OUTCOME_TIMEOUT, v, now);
    }
    rs_flow_pump(f, now);
}
