#include "core/model/report.h"

#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/model/codec.h"

#include <stdlib.h>
#include <string.h>

#define AT(type, member) offsetof(struct type, member)

static const struct rs_member report_members[] = {
    {"revision", RS_MEMBER_U64, AT(rs_report, revision)},
    {"draining", RS_MEMBER_BOOL, AT(rs_report, draining)},
    {"resources", RS_MEMBER_OBJECT, AT(rs_report, resources)},
    {"free", RS_MEMBER_OBJECT, AT(rs_report, free)},
    {"refused", RS_MEMBER_OBJECT, AT(rs_report, refused)},
};

static const struct rs_member replica_members[] = {
    {"app", RS_MEMBER_NAME, AT(rs_report_replica, app)},
    {"deployment", RS_MEMBER_NAME, AT(rs_report_replica, deployment)},
    {"replica_id", RS_MEMBER_NAME, AT(rs_report_replica, replica_id)},
    {"version", RS_MEMBER_NAME, AT(rs_report_replica, version)},
    {"state", RS_MEMBER_STATE, AT(rs_report_replica, state)},
    {"pid", RS_MEMBER_INT, AT(rs_report_replica, pid)},
    {"rank", RS_MEMBER_UINT, AT(rs_report_replica, rank)},
    {"start_time_s", RS_MEMBER_REAL, AT(rs_report_replica, start_time_s)},
    {"ready_time_s", RS_MEMBER_REAL, AT(rs_report_replica, ready_time_s)},
    {"message", RS_MEMBER_TEXT, AT(rs_report_replica, message)},
    {"log_file", RS_MEMBER_TEXT, AT(rs_report_replica, log_file)},
    {"waiting", RS_MEMBER_BOOL, AT(rs_report_replica, waiting)},
    {"stats", RS_MEMBER_OBJECT, AT(rs_report_replica, stats)},
    {"health", RS_MEMBER_OBJECT, AT(rs_report_replica, health)},
    {"in_flight", RS_MEMBER_UINT, AT(rs_report_replica, in_flight)},
    {"models", RS_MEMBER_UINT, AT(rs_report_replica, models)},
    {"done", RS_MEMBER_U64, AT(rs_report_replica, done)},
    {"errors", RS_MEMBER_U64, AT(rs_report_replica, errors)},
};

static const struct rs_member deployment_members[] = {
    {"app", RS_MEMBER_NAME, AT(rs_report_deployment, app)},
    {"name", RS_MEMBER_NAME, AT(rs_report_deployment, name)},
    {"version", RS_MEMBER_NAME, AT(rs_report_deployment, version)},
    {"start_failures", RS_MEMBER_UINT, AT(rs_report_deployment, start_failures)},
    {"failures_total", RS_MEMBER_UINT, AT(rs_report_deployment, failures_total)},
    {"deaths", RS_MEMBER_UINT, AT(rs_report_deployment, deaths)},
    {"ever_ran", RS_MEMBER_BOOL, AT(rs_report_deployment, ever_ran)},
    {"last_error", RS_MEMBER_TEXT, AT(rs_report_deployment, last_error)},
    {"blocked", RS_MEMBER_TEXT, AT(rs_report_deployment, blocked)},
    {"queued", RS_MEMBER_UINT, AT(rs_report_deployment, queued)},
    {"load_us", RS_MEMBER_U64, AT(rs_report_deployment, load_us)},
    {"dropped_full", RS_MEMBER_U64, AT(rs_report_deployment, dropped_full)},
    {"dropped_shed", RS_MEMBER_U64, AT(rs_report_deployment, dropped_shed)},
    {"dropped_expired", RS_MEMBER_U64, AT(rs_report_deployment, dropped_expired)},
    {"router_fallbacks", RS_MEMBER_U64, AT(rs_report_deployment, router_fallbacks)},
    {"router", RS_MEMBER_TEXT, AT(rs_report_deployment, router)},
    {"versions", RS_MEMBER_OBJECT, AT(rs_report_deployment, versions)},
    {"lost", RS_MEMBER_OBJECT, AT(rs_report_deployment, lost)},
};

static const struct rs_member zygote_members[] = {
    {"app", RS_MEMBER_NAME, AT(rs_report_zygote, app)},
    {"version", RS_MEMBER_NAME, AT(rs_report_zygote, version)},
    {"start", RS_MEMBER_TEXT, AT(rs_report_zygote, start)},
    {"reason", RS_MEMBER_TEXT, AT(rs_report_zygote, reason)},
    {"python", RS_MEMBER_TEXT, AT(rs_report_zygote, python)},
    {"state", RS_MEMBER_TEXT, AT(rs_report_zygote, state)},
    {"message", RS_MEMBER_TEXT, AT(rs_report_zygote, message)},
    {"pid", RS_MEMBER_INT, AT(rs_report_zygote, pid)},
};

/* The arrays of a report: one table for encoding, decoding and release. */
static const struct part {
    const char *key;
    const struct rs_member *members;
    size_t n_members;
    size_t array, count; /* offsets */
    size_t size;
} parts[] = {
    {"replicas", replica_members, RS_COUNT(replica_members), AT(rs_report, replicas),
     AT(rs_report, n_replicas), sizeof(struct rs_report_replica)},
    {"deployments", deployment_members, RS_COUNT(deployment_members), AT(rs_report, deployments),
     AT(rs_report, n_deployments), sizeof(struct rs_report_deployment)},
    {"zygotes", zygote_members, RS_COUNT(zygote_members), AT(rs_report, zygotes),
     AT(rs_report, n_zygotes), sizeof(struct rs_report_zygote)},
    {"dead", replica_members, RS_COUNT(replica_members), AT(rs_report, dead), AT(rs_report, n_dead),
     sizeof(struct rs_report_replica)},
};
enum { REPLICAS, DEPLOYMENTS, ZYGOTES, DEAD };

static const struct {
    const char *name, *ray;
} states[] = {
#define RS_X(name, ray) {#name, ray},
    RS_REPLICA_STATES(RS_X)
#undef RS_X
};

const char *rs_replica_state_name(enum rs_replica_state s)
{
    return states[s].name;
}

const char *rs_replica_state_ray_name(enum rs_replica_state s)
{
    return states[s].ray;
}

int rs_replica_state_parse(const char *name)
{
    for (size_t i = 0; i < RS_COUNT(states); i++)
        if (strcmp(states[i].name, name) == 0)
            return (int)i;
    return -1;
}

struct rs_report *rs_report_new(void)
{
    return rs_alloc(sizeof(struct rs_report));
}

static void **array_of(const struct rs_report *r, const struct part *p)
{
    return (void **)(void *)((char *)(uintptr_t)r + p->array);
}

static size_t *count_of(const struct rs_report *r, const struct part *p)
{
    return (size_t *)(void *)((char *)(uintptr_t)r + p->count);
}

static void *append(struct rs_report *r, const struct part *p)
{
    void **array = array_of(r, p);
    size_t *n = count_of(r, p);

    *array = rs_realloc(*array, (*n + 1) * p->size);
    memset((char *)*array + *n * p->size, 0, p->size);
    return (char *)*array + (*n)++ * p->size;
}

void rs_report_free(struct rs_report *r)
{
    if (!r)
        return;
    for (size_t k = 0; k < RS_COUNT(parts); k++) {
        char *array = *array_of(r, &parts[k]);

        for (size_t i = 0; i < *count_of(r, &parts[k]); i++)
            rs_members_fini(array + i * parts[k].size, parts[k].members, parts[k].n_members);
        free(array);
    }
    rs_members_fini(r, report_members, RS_COUNT(report_members));
    free(r);
}

json_t *rs_report_to_json(const struct rs_report *r)
{
    json_t *j = rs_members_encode(r, report_members, RS_COUNT(report_members));

    for (size_t k = 0; k < RS_COUNT(parts); k++) {
        const char *array = *array_of(r, &parts[k]);
        json_t *list = json_array();

        for (size_t i = 0; i < *count_of(r, &parts[k]); i++)
            json_array_append_new(list, rs_members_encode(array + i * parts[k].size,
                                                          parts[k].members, parts[k].n_members));
        json_object_set_new(j, parts[k].key, list);
    }
    return j;
}

int rs_report_from_json(struct rs_report **ret, const json_t *j, struct rs_error *err)
{
    rs_auto(rs_report_freep) struct rs_report *r = rs_report_new();

    if (rs_members_decode(r, j, report_members, RS_COUNT(report_members), "report", err) < 0)
        return -1;
    for (size_t k = 0; k < RS_COUNT(parts); k++) {
        const json_t *list = NULL;
        const json_t *item;
        size_t i;

        if (rs_member_array(j, parts[k].key, &list, err) < 0)
            return rs_error_wrap(err, "report");
        json_array_foreach (list, i, item)
            if (rs_members_decode(append(r, &parts[k]), item, parts[k].members, parts[k].n_members,
                                  parts[k].key, err) < 0)
                return rs_error_wrap(err, "report");
    }
    *ret = rs_steal(r);
    return 0;
}

struct rs_report_replica *rs_report_replica(struct rs_report *r, const char *replica_id)
{
    for (size_t i = 0; i < r->n_replicas; i++)
        if (strcmp(r->replicas[i].replica_id, replica_id) == 0)
            return &r->replicas[i];
    return NULL;
}

struct rs_report_deployment *rs_report_deployment(struct rs_report *r, const char *app,
                                                  const char *name)
{
    for (size_t i = 0; i < r->n_deployments; i++)
        if (strcmp(r->deployments[i].app, app) == 0 && strcmp(r->deployments[i].name, name) == 0)
            return &r->deployments[i];
    return NULL;
}

struct rs_report_replica *rs_report_add_replica(struct rs_report *r)
{
    return append(r, &parts[REPLICAS]);
}

struct rs_report_replica *rs_report_add_dead(struct rs_report *r)
{
    return append(r, &parts[DEAD]);
}

struct rs_report_deployment *rs_report_add_deployment(struct rs_report *r)
{
    return append(r, &parts[DEPLOYMENTS]);
}

struct rs_report_zygote *rs_report_add_zygote(struct rs_report *r)
{
    return append(r, &parts[ZYGOTES]);
}
