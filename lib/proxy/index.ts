// What `fastify-duplex/proxy` exports.

export { proxy } from './proxy.ts'
export { duplexProxy } from './plugin.ts'
