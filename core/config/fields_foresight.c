/* Tables of `rserve: {autoscaling}`: replicas that are there before the load is. */
#include "core/config/fields_foresight.h"

#include "core/base/cron.h"
#include "core/base/quantity.h"

#include <string.h>

enum { ENTRIES_MAX = 100 };
#define PERIOD_MIN 10.0
#define PERIOD_MAX (31 * 86400.0)

static double seconds_of(const struct rs_node *n)
{
    int64_t ns = 0;

    if (n->kind == RS_NODE_INT || n->kind == RS_NODE_REAL)
        return n->real;
    return n->kind == RS_NODE_TEXT && rs_quantity_read(n->text, rs_units_duration, false, &ns)
               ? (double)ns / 1e9
               : -1;
}

static bool is_period(const struct rs_node *n, struct rs_buf *why)
{
    double s = seconds_of(n);

    if (s >= PERIOD_MIN && s <= PERIOD_MAX)
        return true;
    rs_buf_puts(why, "expected a period from 10 seconds to 31 days, such as \"24h\" or \"7d\", ");
    rs_node_show(why, n);
    return false;
}

static bool is_ahead(const struct rs_node *n, struct rs_buf *why)
{
    double s = seconds_of(n);

    if (s >= 0 && s <= PERIOD_MAX)
        return true;
    rs_buf_puts(why, "expected a number of seconds >= 0, or a text such as \"60s\" or \"5m\", ");
    rs_node_show(why, n);
    return false;
}

static bool is_cron(const struct rs_node *n, struct rs_buf *why)
{
    struct rs_cron c;
    struct rs_error err = {0};

    if (rs_cron_parse(&c, n->text, &err) == 0)
        return true;
    rs_buf_puts(why, err.msg);
    return false;
}

static bool are_entries(const struct rs_node *n, struct rs_buf *why)
{
    if (n->count <= ENTRIES_MAX)
        return true;
    rs_buf_printf(why, "expected at most %d entries, got %zu", ENTRIES_MAX, n->count);
    return false;
}

#define D "applications[].deployments[]."

static const struct rs_field entry_fields[] = {
    {"cron", RS_TYPE_TEXT, .flags = RS_F_REQUIRED, .check = is_cron, .reload = RS_RELOAD_LIGHT,
     .help = "When it begins: five fields (minute, hour, day of the month, month, weekday) with "
             "lists, ranges, steps and names, or @hourly, @daily, @weekly, @monthly, @yearly."},
    {"timezone", RS_TYPE_TEXT, .def = "\"UTC\"", .reload = RS_RELOAD_LIGHT,
     .help = "Name of the time zone of the IANA in which that is, such as Europe/Berlin."},
    {"min_replicas", RS_TYPE_INT, .flags = RS_F_REQUIRED, .max = 1e6, .reload = RS_RELOAD_LIGHT,
     .help = "Holds in place of that of autoscaling_config until another entry begins."},
    {"duration_s", RS_TYPE_SECONDS, .flags = RS_F_NULL | RS_F_ABOVE, .max = 1e9,
     .reload = RS_RELOAD_LIGHT,
     .help = "It ends after this, and what began before it holds again. null: no end."},
};
const struct rs_object rs_object_foresight_entry =
    RS_OBJECT(D "rserve.autoscaling.schedule[]",
              "A number of replicas for a time of the day, the week or the year. Of all entries, "
              "the one that began last is in force.",
              entry_fields, true);

#define F(member) RS_AT(struct rs_foresight_conf, member)

static const struct rs_field predict_fields[] = {
    {"period", RS_TYPE_ANY, .flags = RS_F_REQUIRED, .check = is_period, .reload = RS_RELOAD_LIGHT,
     .at = F(period_json),
     .help = "After what time the load is expected again: \"24h\", \"7d\", or seconds. It is "
             "remembered in 288 parts of it."},
    {"ahead", RS_TYPE_ANY, .def = "60", .check = is_ahead, .reload = RS_RELOAD_LIGHT,
     .at = F(ahead_json),
     .help = "How long before the expected load its replicas are started: about as long as they "
             "take, in seconds, or a text such as \"2m\"."},
    {"periods", RS_TYPE_INT, .def = "3", .min = 1, .max = 14, .reload = RS_RELOAD_LIGHT,
     .at = F(periods),
     .help = "So many past periods count, each the same; older ones are forgotten."},
};
const struct rs_object rs_object_foresight_predict = RS_OBJECT(
    D "rserve.autoscaling.predict",
    "Starts replicas for the load that there was at this time of the last periods, before it "
    "comes. It only raises the lower bound: what is too much goes as autoscaling_config says.",
    predict_fields, true);

static const struct rs_field foresight_fields[] = {
    {"schedule", RS_TYPE_LIST, RS_TYPE_OBJECT, .def = "[]", .object = &rs_object_foresight_entry,
     .check = are_entries, .reload = RS_RELOAD_LIGHT, .at = F(schedule),
     .help = "Lower bounds by the clock."},
    {"predict", RS_TYPE_OBJECT, .flags = RS_F_NULL, .object = &rs_object_foresight_predict,
     .at = RS_AT_SELF, .help = "Lower bounds by the load of earlier days. null: none."},
};
const struct rs_object rs_object_foresight =
    RS_OBJECT(D "rserve.autoscaling",
              "Replicas that are there before the load is. For deployments that scale.",
              foresight_fields, true);

void rs_foresight_conf_fill(struct rs_foresight_conf *f)
{
    int64_t period = rs_config_duration(f->period_json);

    f->predicts = period > 0;
    f->period = period;
    f->ahead = f->predicts ? rs_config_duration(f->ahead_json) : 0;
    if (f->ahead > period)
        f->ahead = period;
}

/* --- rules --------------------------------------------------------------------------------------- */

static const struct rs_node *inside(const struct rs_node *map, const char *key)
{
    const struct rs_node_entry *e = map && map->kind == RS_NODE_MAP ? rs_node_get(map, key) : NULL;

    return e ? e->value : NULL;
}

void rs_rules_zones(struct rs_walk *w, const struct rs_node *map)
{
    const struct rs_node *list = inside(inside(inside(map, "rserve"), "autoscaling"), "schedule");

    for (size_t i = 0; list && list->kind == RS_NODE_LIST && i < list->count; i++) {
        const struct rs_node *name = inside(list->items[i], "timezone");
        rs_auto(rs_zone_freep) struct rs_zone *z = NULL;
        struct rs_error err = {0};
        size_t back;

        if (!name || name->kind != RS_NODE_TEXT || rs_zone_load(&z, name->text, &err) == 0)
            continue;
        back = rs_walk_key(w, "rserve");
        (void)rs_walk_key(w, "autoscaling");
        (void)rs_walk_key(w, "schedule");
        (void)rs_walk_index(w, i);
        (void)rs_walk_key(w, "timezone");
        rs_walk_error(w, name->line, name->column, "%s", err.msg);
        rs_walk_back(w, back);
    }
}

void rs_rules_foresight(struct rs_walk *w, const json_t *options)
{
    const json_t *own = json_object_get(json_object_get(options, "rserve"), "autoscaling");
    const json_t *schedule = json_object_get(own, "schedule"), *entry;
    const json_t *scaling = json_object_get(options, "autoscaling_config");
    bool predicts = json_is_object(json_object_get(own, "predict"));
    int64_t max = rs_json_int(scaling, "max_replicas", 1);
    size_t i;

    if (!json_is_object(scaling)) {
        if (predicts || json_array_size(schedule))
            rs_walk_error(w, 0, 0,
                          "rserve.autoscaling needs autoscaling_config, or num_replicas: auto");
        return;
    }
    json_array_foreach (schedule, i, entry) {
        int64_t n = rs_json_int(entry, "min_replicas", 0);

        if (n > max)
            rs_walk_error(w, 0, 0,
                          "rserve.autoscaling.schedule[%zu]: max_replicas (%lld) must be greater "
                          "than or equal to min_replicas (%lld)!",
                          i, (long long)max, (long long)n);
    }
}
