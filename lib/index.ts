// The plugin: options, the hook that makes routes duplex, the decorators, the servers.

import type { Server } from 'node:http'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { FastifyDuplexOptions } from '../types/index.d.ts'
import { missingFromNode, otherServers, watch } from './handoff.ts'
import { DEFAULT_OPTIONS, resolveOptions } from './options.ts'
import { getDuplex, makeDuplex } from './route.ts'

async function duplex (app: FastifyInstance, options: FastifyDuplexOptions): Promise<void> {
  const defaults = resolveOptions(options, DEFAULT_OPTIONS)

  const missing = missingFromNode()
  if (missing !== null) {
    app.log.warn(`fastify-duplex cannot take connections from Node ${process.version} (${missing}): duplex routes are slower`)
  } else {
    watch(app.server as Server)
    app.addHook('onListen', function () {
      for (const server of otherServers(this)) watch(server)
    })
  }

  app.decorateReply('duplex', { getter: getDuplex })
  app.addHook('onRoute', function (route) {
    makeDuplex.call(this, route, defaults)
  })
}

const fastifyDuplex = fp(duplex, { fastify: '5.x', name: 'fastify-duplex' })

export default fastifyDuplex
export { fastifyDuplex }

// require('fastify-duplex') is the plugin itself; the names above stay on it, for ESM and for TypeScript.
module.exports = Object.assign(fastifyDuplex, exports)
