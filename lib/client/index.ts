// What `fastify-duplex/client` exports.

export { Agent } from './agent.ts'
export { open } from './open.ts'
