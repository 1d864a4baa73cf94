/* What a node has and what a replica wants.
 *
 * Units:     cpu, gpu and custom amounts in 1/10000 of one (0.5 GPU is 5000), memory in bytes. No
 *            floating point: what was taken and given back sums to exactly what was there.
 * Ownership: {0} is valid and empty; rs_resources_fini releases the custom names. A plain assignment
 *            moves; rs_resources_copy copies.
 * Errors:    reading fails with RS_INVALID, naming the resource and what was found; *ret is then
 *            untouched.
 * Invariant: every amount is >= 0 but after rs_resources_take_anyway; a custom entry is not 0; entries
 *            are sorted by name, each name once.
 * Layer:     core/resource includes core/base only.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/error.h"
#include "core/base/json.h"

#include <stdint.h>

#define RS_ONE INT64_C(10000)
#define RS_FIXED_MAX (INT64_C(1000000000) * RS_ONE) /* amounts above are refused */
#define RS_MEMORY_MAX (INT64_C(1) << 60)

struct rs_resource_item {
    char *name;
    int64_t amount;
};

struct rs_resources {
    int64_t cpu, gpu, memory;
    struct rs_resource_item *custom;
    size_t count;
};

void rs_resources_fini(struct rs_resources *r);
void rs_resources_copy(struct rs_resources *to, const struct rs_resources *from); /* `to` is new */
bool rs_resources_equal(const struct rs_resources *a, const struct rs_resources *b);
bool rs_resources_empty(const struct rs_resources *r);
int64_t rs_resources_custom(const struct rs_resources *r, const char *name); /* 0: none */
/* Sets a custom amount; 0 removes it. */
void rs_resources_set_custom(struct rs_resources *r, const char *name, int64_t amount);

/* Takes all of `want` out of `have`, or nothing. False: it does not fit and `have` is untouched. */
RS_MUST_CHECK bool rs_resources_take(struct rs_resources *have, const struct rs_resources *want);
/* The same whether it fits or not: amounts may fall below 0. For facts, not for plans. */
void rs_resources_take_anyway(struct rs_resources *have, const struct rs_resources *want);
/* Gives back what an earlier take took. */
void rs_resources_give(struct rs_resources *have, const struct rs_resources *want);
bool rs_resources_fits(const struct rs_resources *have, const struct rs_resources *want);

/* Reads "2", "0.5" or "0.0001" into 1/10000 units. */
RS_MUST_CHECK int rs_fixed_parse(const char *text, int64_t *ret, struct rs_error *err);
/* To the nearest 1/10000; refuses negative, too large, and what is above 0 but below 0.0001. */
RS_MUST_CHECK int rs_fixed_from_double(double v, int64_t *ret, struct rs_error *err);
double rs_fixed_double(int64_t v);
/* Appends "2", "0.5", "0.0001". */
void rs_fixed_print(struct rs_buf *out, int64_t v);
/* Appends "512 bytes", "1.5 GiB". */
void rs_memory_print(struct rs_buf *out, int64_t bytes);

/* {"CPU": 2, "GPU": 0.5, "memory": 1000000, "disk": 1}: as Ray writes it (JOIN, required_resources,
 * --resources). A GPU amount above 1 must be whole. */
RS_MUST_CHECK int rs_resources_from_json(struct rs_resources *ret, const json_t *obj,
                                         struct rs_error *err);
/* What one replica with these `ray_actor_options` takes: num_cpus (1 when absent or null), num_gpus,
 * memory, resources, accelerator_type (0.001 of the custom resource "accelerator_type:T"). */
RS_MUST_CHECK int rs_resources_from_actor_options(struct rs_resources *ret, const json_t *options,
                                                  struct rs_error *err);
/* {"CPU": 1.0}; what is 0 is left out. A new reference. */
json_t *rs_resources_json(const struct rs_resources *r);
/* Appends "1 CPU, 0.5 GPU, 2 GiB memory, 1 disk", or "nothing". */
void rs_resources_print(struct rs_buf *out, const struct rs_resources *r);
