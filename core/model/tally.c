#include "core/model/tally.h"

#include "core/base/clock.h"

#include <math.h>

unsigned rs_tally_bucket(int64_t ns)
{
    uint64_t us = ns > 0 ? (uint64_t)(ns / RS_US) : 0;
    unsigned octave;

    if (us < 8)
        return (unsigned)us;
    if (us > UINT32_MAX)
        return RS_TALLY_BUCKETS - 1;
    octave = 63 - (unsigned)__builtin_clzll(us);
    return 8 + (octave - 3) * 8 + (unsigned)((us >> (octave - 3)) & 7);
}

int64_t rs_tally_upper(unsigned bucket)
{
    if (bucket < 8)
        return (int64_t)(bucket + 1) * RS_US;
    return ((int64_t)(8 + (bucket - 8) % 8 + 1) << ((bucket - 8) / 8)) * RS_US;
}

void rs_tally_add(struct rs_tally *to, const struct rs_tally *more)
{
    to->requests += more->requests;
    to->errors += more->errors;
    to->deaths += more->deaths;
    for (unsigned i = 0; i < RS_TALLY_BUCKETS; i++)
        to->bucket[i] += more->bucket[i];
}

bool rs_tally_since(const struct rs_tally *now, const struct rs_tally *before, struct rs_tally *ret)
{
    struct rs_tally t = *now;

    if (now->requests < before->requests || now->errors < before->errors ||
        now->deaths < before->deaths)
        return false;
    t.requests -= before->requests;
    t.errors -= before->errors;
    t.deaths -= before->deaths;
    for (unsigned i = 0; i < RS_TALLY_BUCKETS; i++) {
        if (now->bucket[i] < before->bucket[i])
            return false;
        t.bucket[i] -= before->bucket[i];
    }
    *ret = t;
    return true;
}

uint64_t rs_tally_above(const struct rs_tally *t, unsigned bucket)
{
    uint64_t n = 0;

    for (unsigned i = bucket + 1; i < RS_TALLY_BUCKETS; i++)
        n += t->bucket[i];
    return n;
}

uint64_t rs_tally_timed(const struct rs_tally *t)
{
    return t->bucket[0] + rs_tally_above(t, 0);
}

int rs_tally_quantile(const struct rs_tally *t, double q)
{
    uint64_t all = rs_tally_timed(t), seen = 0;
    uint64_t rank = (uint64_t)ceil(q * (double)all);

    if (!all)
        return -1;
    for (unsigned i = 0; i < RS_TALLY_BUCKETS; i++) {
        seen += t->bucket[i];
        if (seen >= rank && seen)
            return (int)i;
    }
    return RS_TALLY_BUCKETS - 1;
}

json_t *rs_tally_to_json(const struct rs_tally *t)
{
    json_t *latency = json_array();

    for (unsigned i = 0; i < RS_TALLY_BUCKETS; i++) {
        if (t->bucket[i])
            json_array_append_new(latency, json_pack("[i, I]", (int)i, (json_int_t)t->bucket[i]));
    }
    return json_pack("{s:I, s:I, s:I, s:o}", "requests", (json_int_t)t->requests, "errors",
                     (json_int_t)t->errors, "deaths", (json_int_t)t->deaths, "latency", latency);
}

static int read_count(const json_t *j, const char *what, uint64_t *ret, struct rs_error *err)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return rs_error_set(err, RS_INVALID, "tally: expected %s to be an integer of at least 0",
                            what);
    *ret = (uint64_t)json_integer_value(j);
    return 0;
}

int rs_tally_from_json(struct rs_tally *ret, const json_t *j, struct rs_error *err)
{
    const json_t *latency = json_object_get(j, "latency"), *pair;
    struct rs_tally t = {0};
    size_t i;

    if (read_count(json_object_get(j, "requests"), "requests", &t.requests, err) < 0 ||
        read_count(json_object_get(j, "errors"), "errors", &t.errors, err) < 0 ||
        read_count(json_object_get(j, "deaths"), "deaths", &t.deaths, err) < 0)
        return -1;
    if (!json_is_array(latency))
        return rs_error_set(err, RS_INVALID, "tally: expected latency to be an array");
    json_array_foreach (latency, i, pair) {
        uint64_t at = 0, n = 0;

        if (read_count(json_array_get(pair, 0), "a bucket", &at, err) < 0 ||
            read_count(json_array_get(pair, 1), "a bucket's count", &n, err) < 0)
            return -1;
        if (at >= RS_TALLY_BUCKETS)
            return rs_error_set(err, RS_INVALID, "tally: there is no bucket %llu",
                                (unsigned long long)at);
        t.bucket[at] = n;
    }
    *ret = t;
    return 0;
}
