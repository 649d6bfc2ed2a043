"""Settings of commands: by flag, environment, TOML file or default, in this order.

Every field of a settings class is a flag (`video_cfg_guidance_scale` is
`--video-cfg-guidance-scale`), an environment variable (`ENTRACTE_VIDEO_CFG_GUIDANCE_SCALE`) and a
key of the TOML file, which all commands share.
"""
