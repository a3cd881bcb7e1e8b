// `fastify-duplex/items`.

export { itemCodec } from './custom.ts'
export { jsonSeq, jsonl, problemSchema, sse } from './formats.ts'
export { withItemSchemas } from './openapi.ts'
