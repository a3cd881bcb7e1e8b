// The plugin's proxy. With the argument `count`, it counts the bytes of content that it writes from the buffer they were read into.

import { join } from 'node:path'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { Agent } from 'fastify-duplex/client'
import { proxy } from 'fastify-duplex/proxy'
import { serve } from '../serve.ts'

const [, , port, mode] = process.argv

async function main (): Promise<void> {
  const count = mode === 'count' ? countRelayed() : undefined
  const app = Fastify()
  await app.register(duplex)
  app.all('/*', { duplex: true }, proxy({ upstream: `http://127.0.0.1:${port}`, agent: new Agent({ maxConnections: 10_000 }) }))
  await app.listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
  serve(app.server, { count })
}

/** Wraps the two functions of the build that decide. Not for a process that is timed. @returns what tells the bytes so far */
function countRelayed (): () => { relayed: number } {
  const build = join(__dirname, '..', '..', '..', '..', 'dist', 'relay')
  const { DirectRelay } = require(join(build, 'relay.js')) as { DirectRelay: { prototype: { push: (content: Buffer) => boolean } } }
  const buffers = require(join(build, 'read-buffers.js')) as { requestPrivateBuffer: () => object | null }
  const { push } = DirectRelay.prototype
  const { requestPrivateBuffer } = buffers
  let relayed = 0
  let size = 0
  DirectRelay.prototype.push = function (content) {
    size = content.length
    return push.call(this, content)
  }
  buffers.requestPrivateBuffer = () => {
    const buffer = requestPrivateBuffer()
    if (buffer !== null) relayed += size
    return buffer
  }
  return () => ({ relayed })
}

main()
