#include "net/router/rules.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "net/router/rate.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum {
    SHARDS = 16,
    SHARD_SLOTS = 1 << 14, /* 256 KiB; 4 MiB and some 196,000 keys for a limit */
};

struct shard {
    pthread_mutex_t lock;
    struct rs_rate rate;
};

struct rs_limiter {
    struct shard shards[SHARDS];
    struct rs_hash_key secret;
    atomic_uint refs;
};

static struct rs_limiter *limiter_new(const struct rs_rate_limit *of)
{
    struct rs_limiter *l = rs_alloc(sizeof(*l));

    atomic_init(&l->refs, 1);
    if (getrandom(&l->secret, sizeof(l->secret), 0) != sizeof(l->secret))
        l->secret.k[0] = (uint64_t)rs_clock_now();
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&l->shards[i].lock, NULL);
        rs_rate_init(&l->shards[i].rate, of->requests_per_s, of->burst, SHARD_SLOTS);
    }
    return l;
}

static void limiter_unref(struct rs_limiter *l)
{
    if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_destroy(&l->shards[i].lock);
        rs_rate_fini(&l->shards[i].rate);
    }
    free(l);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_limit(const struct rs_rate_limit *a, const struct rs_rate_limit *b)
{
    return a->requests_per_s == b->requests_per_s && a->burst == b->burst && a->key == b->key &&
           same_text(a->header, b->header) && same_text(a->route, b->route);
}

/* With the buckets that it had, if it is as it was. */
static struct rs_limiter *limiter_for(const struct rs_rate_limit *of, const struct rs_rules *old)
{
    for (size_t i = 0; old && i < old->policy->n_limits; i++) {
        if (!same_limit(of, &old->policy->limits[i]))
            continue;
        atomic_fetch_add_explicit(&old->limiters[i]->refs, 1, memory_order_relaxed);
        return old->limiters[i];
    }
    return limiter_new(of);
}

struct rs_rules *rs_rules_new(const char *app, const json_t *policy, const struct rs_rules *old)
{
    struct rs_app_policy *p = NULL;
    struct rs_error err = {0};
    struct rs_rules *r;

    if (json_object_size(policy) == 0)
        return NULL;
    if (rs_app_policy_new(&p, policy, &err) < 0) {
        rs_log_warn("what an application asks of the ingress is left out",
                    "application=\"%s\" reason=\"%s\"", app, err.msg);
        return NULL;
    }
    r = rs_alloc(sizeof(*r));
    atomic_init(&r->refs, 1);
    r->policy = p;
    r->limiters = rs_alloc(p->n_limits * sizeof(struct rs_limiter *));
    for (size_t i = 0; i < p->n_limits; i++)
        r->limiters[i] = limiter_for(&p->limits[i], old);
    return r;
}

struct rs_rules *rs_rules_ref(struct rs_rules *r)
{
    if (r)
        atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void rs_rules_unref(struct rs_rules *r)
{
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < r->policy->n_limits; i++)
        limiter_unref(r->limiters[i]);
    free(r->limiters);
    rs_app_policy_free(r->policy);
    free(r);
}

/* Strangers choose who they are: none of them can choose to be another one. */
static uint64_t key_of(const struct rs_limiter *l, const void *who, size_t len)
{
    struct rs_hash h;

    rs_hash_init(&h, &l->secret);
    rs_hash_put(&h, who, len);
    return rs_hash_end(&h).h[0];
}

int64_t rs_rules_take(struct rs_rules *r, const struct rs_route_policy *p, const void *who,
                      size_t len, int64_t now)
{
    struct rs_limiter *l = r->limiters[p->limit];
    uint64_t key = key_of(l, who, len);
    struct shard *s = &l->shards[key >> 60];
    int64_t wait;

    pthread_mutex_lock(&s->lock);
    wait = rs_rate_take(&s->rate, key, now);
    pthread_mutex_unlock(&s->lock);
    return wait;
}
