// Starts the app of an example on one port. For another port: `PORT=8080 npm run …`. Ctrl-C stops the app.

import Fastify, { type FastifyInstance } from 'fastify'
import duplex from 'fastify-duplex'

/** @returns the address of the app, such as `http://127.0.0.1:3000` */
export async function listen (setup: (app: FastifyInstance) => unknown, { port = 3000, level = 'warn' } = {}): Promise<string> {
  const app = Fastify({ logger: { level } })
  await app.register(duplex) // before the routes
  await setup(app)
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  return app.listen({ port: Number(process.env.PORT ?? port), host: '127.0.0.1' })
}
