// What the examples have in common: one app on one port. `PORT=8080 npm run …` for another port; Ctrl-C ends it.

import Fastify, { type FastifyInstance } from 'fastify'
import duplex from 'fastify-duplex'

/** @returns the address */
export async function listen (setup: (app: FastifyInstance) => unknown, { port = 3000, level = 'warn' } = {}): Promise<string> {
  const app = Fastify({ logger: { level } })
  await app.register(duplex) // before the routes
  await setup(app)
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  return app.listen({ port: Number(process.env.PORT ?? port), host: '127.0.0.1' })
}
