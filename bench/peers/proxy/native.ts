// Launches HAProxy or nginx with one of the configuration files beside this one, and ends it when the parent closes our stdin.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { announce } from '../serve.ts'

const SOURCES = join(__dirname, '..', '..', '..', 'peers', 'proxy')

async function main (): Promise<void> {
  const [, , origin, file, module] = process.argv
  const port = await freePort()
  const values: Record<string, string | number> = { port, origin, module }
  const directory = mkdtempSync(join(tmpdir(), 'bench-proxy-'))
  const template = readFileSync(join(SOURCES, file), 'utf8')
  writeFileSync(join(directory, file), template.replace(/@(\w+)@/g, (_, name) => String(values[name])))
  const [command, ...args] = file.endsWith('.cfg') ? ['haproxy', '-db', '-f', file] : ['nginx', '-p', '.', '-e', 'stderr', '-c', file]
  const proxy = spawn(command, args, { cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] })
  process.on('exit', () => {
    proxy.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  })
  proxy.on('exit', () => process.exit(1))
  while (!await accepts(port));
  announce({ port, pid: proxy.pid })
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function accepts (port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  const isOpen = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  })
  socket.destroy()
  return isOpen
}

main()
