/* Results of spatialnet-edge in C: one header, no dependency, no allocation. Layout version 2; see sdk/spatialnet_edge/sinks/record_codec.py.
 *
 * Read one message from the socket of a `unix:` sink (SOCK_SEQPACKET) or one datagram of a `udp:` sink into a buffer, then:
 *
 *     struct spatialnet_record record;
 *     int status = spatialnet_read(buffer, length, &record);
 *
 * It works with any byte order and alignment of the host, because values are assembled byte by byte.
 */
#ifndef SPATIALNET_RECORD_H
#define SPATIALNET_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    SPATIALNET_VERSION = 2,
    SPATIALNET_HEADER_BYTES = 64,
    SPATIALNET_BUNDLE_BYTES = 8,
    SPATIALNET_ANSWER_BYTES = 16,
    SPATIALNET_CRC_BYTES = 4,
    SPATIALNET_MOST_ANSWERS = 64,
    SPATIALNET_MOST_BYTES = SPATIALNET_HEADER_BYTES + SPATIALNET_MOST_ANSWERS * SPATIALNET_ANSWER_BYTES + SPATIALNET_CRC_BYTES
};

enum spatialnet_status {
    SPATIALNET_OK = 0,
    SPATIALNET_NOT_A_RECORD = -1,   /* too short, or another magic */
    SPATIALNET_OTHER_VERSION = -2,  /* of the layout */
    SPATIALNET_WRONG_SIZE = -3,     /* truncated, or too many predictions */
    SPATIALNET_WRONG_CRC = -4       /* changed during transmission */
};

enum spatialnet_flags { SPATIALNET_DARK = 1, SPATIALNET_SATURATED = 2, SPATIALNET_LATE = 4, SPATIALNET_PLACED = 8 };
enum spatialnet_reason { /* why no head has a label */
    SPATIALNET_ANSWERED = 0,
    SPATIALNET_UNKNOWN = 1,
    SPATIALNET_TOO_DARK = 2,
    SPATIALNET_TOO_BRIGHT = 3,
    SPATIALNET_FEATURELESS = 4
};
enum { SPATIALNET_KNOWN_NOT_SAID = 255 };
enum spatialnet_kind { SPATIALNET_ONE_LABEL = 0, SPATIALNET_LABELS = 1, SPATIALNET_QUANTITY = 2 };

struct spatialnet_answer {
    uint8_t head;     /* index of the head in the model */
    uint8_t kind;     /* enum spatialnet_kind */
    int16_t label;    /* index of the label in the head; -1: no label */
    float value;      /* confidence, or the quantity */
    uint64_t present; /* bits of the present labels */
};

struct spatialnet_record {
    uint64_t seq;
    uint64_t captured_ns; /* monotonic clock */
    uint64_t captured_us; /* since 1970, UTC */
    uint32_t age_us;      /* from capture to result */
    uint16_t flags;       /* enum spatialnet_flags */
    uint16_t answers_used;
    int32_t latitude_e7, longitude_e7, altitude_mm; /* only with SPATIALNET_PLACED; altitude INT32_MIN if unknown */
    uint8_t bundle[SPATIALNET_BUNDLE_BYTES]; /* first bytes of the bundle's sha256 */
    uint8_t known;        /* in 1/254; SPATIALNET_KNOWN_NOT_SAID if the model has no such output */
    uint8_t reason;       /* enum spatialnet_reason */
    struct spatialnet_answer answers[SPATIALNET_MOST_ANSWERS];
};

static inline uint64_t spatialnet_little(const uint8_t *from, int bytes)
{
    uint64_t value = 0;
    for (int index = bytes - 1; index >= 0; index--)
        value = value << 8 | from[index];
    return value;
}

/* CRC-32 as in zlib: polynomial 0xEDB88320, reflected, inverted at both ends. */
static inline uint32_t spatialnet_crc32(const uint8_t *from, size_t length)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t index = 0; index < length; index++) {
        crc ^= from[index];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

/* Decodes a record; `record` is complete only if the status is SPATIALNET_OK. */
static inline int spatialnet_read(const uint8_t *from, size_t length, struct spatialnet_record *record)
{
    if (length < SPATIALNET_HEADER_BYTES + SPATIALNET_CRC_BYTES || memcmp(from, "SNER", 4) != 0)
        return SPATIALNET_NOT_A_RECORD;
    if (spatialnet_little(from + 4, 2) != SPATIALNET_VERSION)
        return SPATIALNET_OTHER_VERSION;
    size_t answers = (size_t)spatialnet_little(from + 38, 2);
    size_t expected = SPATIALNET_HEADER_BYTES + answers * SPATIALNET_ANSWER_BYTES + SPATIALNET_CRC_BYTES;
    if (answers > SPATIALNET_MOST_ANSWERS || length != expected || spatialnet_little(from + 6, 2) != expected)
        return SPATIALNET_WRONG_SIZE;
    if (spatialnet_little(from + length - 4, 4) != spatialnet_crc32(from, length - 4))
        return SPATIALNET_WRONG_CRC;
    record->seq = spatialnet_little(from + 8, 8);
    record->captured_ns = spatialnet_little(from + 16, 8);
    record->captured_us = spatialnet_little(from + 24, 8);
    record->age_us = (uint32_t)spatialnet_little(from + 32, 4);
    record->flags = (uint16_t)spatialnet_little(from + 36, 2);
    record->answers_used = (uint16_t)answers;
    record->latitude_e7 = (int32_t)(uint32_t)spatialnet_little(from + 40, 4);
    record->longitude_e7 = (int32_t)(uint32_t)spatialnet_little(from + 44, 4);
    record->altitude_mm = (int32_t)(uint32_t)spatialnet_little(from + 48, 4);
    memcpy(record->bundle, from + 52, SPATIALNET_BUNDLE_BYTES);
    record->known = from[60];
    record->reason = from[61];
    for (size_t index = 0; index < answers; index++) {
        const uint8_t *at = from + SPATIALNET_HEADER_BYTES + index * SPATIALNET_ANSWER_BYTES;
        struct spatialnet_answer *answer = &record->answers[index];
        uint32_t bits = (uint32_t)spatialnet_little(at + 4, 4);
        answer->head = at[0];
        answer->kind = at[1];
        answer->label = (int16_t)(uint16_t)spatialnet_little(at + 2, 2);
        memcpy(&answer->value, &bits, sizeof bits); /* IEEE 754 binary32 */
        answer->present = spatialnet_little(at + 8, 8);
    }
    return SPATIALNET_OK;
}

#endif
