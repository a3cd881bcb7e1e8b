// `fastify-duplex/items`.

export { itemCodec } from './custom.ts'
export { jsonSeq, jsonl, problemSchema, sse } from './formats.ts'
