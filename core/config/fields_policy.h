/* The keys that an application and each of its routes have in common. A macro, since the table of the
 * application's extension has them among others. Internal to core/config. */
#pragma once

#include "core/config/fields.h"

extern const struct rs_object rs_object_rate, rs_object_route;

#define RS_POLICY_FIELDS                                                                           \
    {"max_body",                                                                                   \
     RS_TYPE_BYTES,                                                                                \
     .flags = RS_F_NULL | RS_F_INHERIT,                                                            \
     .min = 1,                                                                                     \
     .reload = RS_RELOAD_LIGHT,                                                                    \
     .help =                                                                                       \
         "Bytes that the body of a request may have; more is 413, at once where the length is "    \
         "told. null: no limit."},                                                                 \
        {"request_timeout_s",                                                                      \
         RS_TYPE_SECONDS,                                                                          \
         .flags = RS_F_NULL | RS_F_INHERIT,                                                        \
         .max = 1e9,                                                                               \
         .reload = RS_RELOAD_LIGHT,                                                                \
         .help =                                                                                   \
             "Time limit of a request from its first byte; then 408. null or 0: none, also "       \
             "where http_options has one. A request's own x-request-timeout-seconds goes over "    \
             "it, x-request-timeout-ms and grpc-timeout make it shorter."},                        \
        {"idempotent", RS_TYPE_BOOL, .flags = RS_F_INHERIT, .reload = RS_RELOAD_LIGHT,             \
         .help = "Requests may be run twice: one whose replica died is run by another one. Not "   \
                 "given: false; GET and HEAD are idempotent without it."},                         \
        {"priority",                                                                               \
         RS_TYPE_INT,                                                                              \
         .flags = RS_F_INHERIT,                                                                    \
         .max = RS_PRIORITY_MAX,                                                                   \
         .reload = RS_RELOAD_LIGHT,                                                                \
         .help = "9 is the most urgent, 0 the least: who is served first where requests wait, "    \
                 "and is shed "                                                                    \
                 "last. A request may ask for less with the header x-request-priority. Not "       \
                 "given: 5."},                                                                     \
        {"max_priority",                                                                           \
         RS_TYPE_INT,                                                                              \
         .flags = RS_F_INHERIT,                                                                    \
         .max = RS_PRIORITY_MAX,                                                                   \
         .reload = RS_RELOAD_LIGHT,                                                                \
         .help = "The most urgent class that x-request-priority may ask for: trusted clients "     \
                 "only. Not "                                                                      \
                 "given: no more than `priority`."},                                               \
    {                                                                                              \
        "rate_limit", RS_TYPE_OBJECT,                                                              \
            .flags = RS_F_NULL | RS_F_INHERIT | RS_F_SPARSE, .object = &rs_object_rate,            \
            .reload = RS_RELOAD_LIGHT,                                                             \
            .help = "How many requests a client may make; more are 429 with Retry-After. Counted " \
                    "on each node by itself. null: no limit."                                      \
    }
